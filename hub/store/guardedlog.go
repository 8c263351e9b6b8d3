package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
)

// guardedLog is the Raft log behind the space check. A write that fails in the
// log itself leaves raft-wal unable to append until it is opened again, so the
// member then stops, with fail, rather than limp.
type guardedLog struct {
	*wal.WAL
	space  *space
	fail   func(error)
	points Failpoints
}

// StoreLog implements raft.LogStore.
func (g *guardedLog) StoreLog(entry *raft.Log) error { return g.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore: the entries are on disk when it returns.
func (g *guardedLog) StoreLogs(entries []*raft.Log) error {
	if err := g.admit(entries); err != nil {
		return err
	}
	return g.write(entries)
}

// admit says whether there is space for entries, and counts it as taken.
func (g *guardedLog) admit(entries []*raft.Log) error {
	if err := g.space.check(g.space.reserve / 2); err != nil {
		return err
	}
	for _, e := range entries {
		// The log and later bbolt each take a copy.
		g.space.free.Add(-2 * int64(len(e.Data)))
	}
	return nil
}

// write is StoreLogs for entries that were admitted.
func (g *guardedLog) write(entries []*raft.Log) error {
	if err := g.append(entries); err != nil {
		err = fmt.Errorf("store: write the Raft log under %s: %w: mend the disk and start this member again", g.space.path, err)
		g.fail(err)
		return err
	}
	return nil
}

func (g *guardedLog) append(entries []*raft.Log) error {
	if err := g.points.At(BeforeLogAppend); err != nil {
		return err
	}
	if err := g.WAL.StoreLogs(sealed(entries)); err != nil {
		return err
	}
	return g.points.At(AfterLogAppend)
}

// errAltered is wrapped by what is found to differ from what was written.
var errAltered = errors.New("it is not what was written")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const sealBytes = 4

// sealed returns entries with a checksum each, in Raft's field for such things.
// raft-wal has checksums of its own, and looks at them only in the file that it
// wrote last, and only when it is opened.
func sealed(entries []*raft.Log) []*raft.Log {
	out := make([]*raft.Log, len(entries))
	for i, e := range entries {
		c := *e
		c.Extensions = binary.BigEndian.AppendUint32(append([]byte(nil), e.Extensions...), seal(e))
		out[i] = &c
	}
	return out
}

func seal(e *raft.Log) uint32 {
	head := binary.BigEndian.AppendUint64(nil, e.Index)
	head = append(binary.BigEndian.AppendUint64(head, e.Term), byte(e.Type))
	return crc32.Update(crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, e.Data), castagnoli, e.Extensions)
}

// GetLog implements raft.LogStore. An entry that was altered on disk stops the
// member: it must neither be applied nor sent to others.
func (g *guardedLog) GetLog(index uint64, entry *raft.Log) error {
	if err := g.WAL.GetLog(index, entry); err != nil {
		return err
	}
	if err := unseal(index, entry); err != nil {
		err = fmt.Errorf("store: entry %d of the Raft log under %s: %w: %s", index, g.space.path, err, startAfresh)
		g.fail(err)
		return err
	}
	return nil
}

// unseal checks entry and gives it back as it was stored.
func unseal(index uint64, entry *raft.Log) error {
	n := len(entry.Extensions) - sealBytes
	if n < 0 || entry.Index != index {
		return errAltered
	}
	want := binary.BigEndian.Uint32(entry.Extensions[n:])
	if entry.Extensions = entry.Extensions[:n:n]; n == 0 {
		entry.Extensions = nil
	}
	if seal(entry) != want {
		return errAltered
	}
	return nil
}

// verify reads the whole log.
func (g *guardedLog) verify() error {
	first, err := g.FirstIndex()
	if err != nil {
		return err
	}
	last, err := g.LastIndex()
	if err != nil {
		return err
	}
	if first > last {
		return fmt.Errorf("it begins at entry %d and ends at %d: %w", first, last, errAltered)
	}
	half := first + (last-first)/2
	return sideBySide(
		func() error { return g.verifyFrom(first, half) },
		func() error { return g.verifyFrom(half+1, last) },
	)
}

func (g *guardedLog) verifyFrom(first, last uint64) error {
	for index := first; index <= last && index > 0; index++ {
		var entry raft.Log
		err := g.WAL.GetLog(index, &entry)
		if err == nil {
			err = unseal(index, &entry)
		}
		if err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
	}
	return nil
}

// startAfresh is the remedy for a member whose own data cannot be trusted.
const startAfresh = "remove this member's data directory and let it catch up from the others, or restore a backup"

// Set implements raft.StableStore: votes and terms are sealed too.
func (g *guardedLog) Set(key, value []byte) error {
	return g.WAL.Set(key, binary.BigEndian.AppendUint32(append([]byte(nil), value...), crc32.Checksum(value, castagnoli)))
}

// Get implements raft.StableStore.
func (g *guardedLog) Get(key []byte) ([]byte, error) {
	value, err := g.WAL.Get(key)
	if err != nil || len(value) == 0 {
		return nil, err
	}
	n := len(value) - sealBytes
	if n < 0 || crc32.Checksum(value[:n], castagnoli) != binary.BigEndian.Uint32(value[n:]) {
		return nil, fmt.Errorf("store: %s of Raft under %s: %w: %s", key, g.space.path, errAltered, startAfresh)
	}
	return value[:n], nil
}

// SetUint64 implements raft.StableStore.
func (g *guardedLog) SetUint64(key []byte, value uint64) error {
	return g.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

// GetUint64 implements raft.StableStore; 0 if it was never set.
func (g *guardedLog) GetUint64(key []byte) (uint64, error) {
	value, err := g.Get(key)
	if err != nil || len(value) == 0 {
		return 0, err
	}
	if len(value) != 8 {
		return 0, fmt.Errorf("store: %s of Raft under %s: %w: %s", key, g.space.path, errAltered, startAfresh)
	}
	return binary.BigEndian.Uint64(value), nil
}
