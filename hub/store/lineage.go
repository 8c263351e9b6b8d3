package store

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Members tell each other the lineage of their state before a word of Raft is
// spoken. A hub that was recovered from the loss of its majority, or restored
// from a backup, is of a new incarnation; the members that were given up may
// still run, with a log of their own, a quorum among themselves and a higher
// term. Raft alone would let one of them append to a member of the new hub:
// it checks the leader's term, not whether the leader is in the configuration.

// lineage says which history a state belongs to. Incarnation 0 is a member
// without any state yet; it may learn any.
type lineage struct{ clusterID, incarnation uint64 }

var lineageMagic = [8]byte{'T', 'R', 'P', 'L', 'I', 'N', 'E', '1'}

// lineageError says why two members do not speak.
type lineageError struct {
	mine, theirs lineage
	peer         string
}

func (e *lineageError) Error() string {
	switch {
	case e.mine.clusterID != e.theirs.clusterID:
		return fmt.Sprintf("member %q belongs to another hub (cluster %x, this one is %x): stop the one that is wrong here and empty its data folder",
			e.peer, e.theirs.clusterID, e.mine.clusterID)
	case e.theirs.incarnation > e.mine.incarnation:
		return fmt.Sprintf("this member is of incarnation %d and member %q of %d: the hub was recovered or restored without this member; "+
			"stop it, empty its data folder, and let it join as new: tripodctl hub add",
			e.mine.incarnation, e.peer, e.theirs.incarnation)
	default:
		return fmt.Sprintf("member %q is of incarnation %d and the hub of %d: it was left behind by a recovery or a restore; "+
			"stop it, empty its data folder, and let it join as new: tripodctl hub add",
			e.peer, e.theirs.incarnation, e.mine.incarnation)
	}
}

// compare says whether two members may speak Raft.
func compare(mine, theirs lineage, peer string) error {
	if mine.incarnation == 0 || theirs.incarnation == 0 || mine == theirs {
		return nil
	}
	return &lineageError{mine: mine, theirs: theirs, peer: peer}
}

// introduction exchanges lineages on a fresh connection and remembers a hub that
// has gone on without this member.
type introduction struct {
	self func() lineage
	// levels are what this member tells of the command set.
	levels func() tellLevels
	// behind is the first newer incarnation of this hub that was met. It is for
	// good: what this member holds is not the hub's state any more.
	behind atomic.Uint64
	// remember makes it last over restarts.
	remember func(newer uint64)

	mu sync.Mutex
	// tried are the members with which a connection was made, or failed, since
	// this process started.
	tried map[string]bool
	// changed is closed when tried grows.
	changed chan struct{}
}

func newIntroduction(self func() lineage, remember func(newer uint64)) *introduction {
	return &introduction{self: self, remember: remember, tried: map[string]bool{}, changed: make(chan struct{})}
}

// note records that a connection with the peer was made or could not be.
func (i *introduction) note(peer string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.tried[peer] {
		return
	}
	i.tried[peer] = true
	close(i.changed)
	i.changed = make(chan struct{})
}

// awaitTried returns when every one of the peers was tried once, or ctx ends.
func (i *introduction) awaitTried(ctx context.Context, peers []string) {
	for {
		i.mu.Lock()
		missing := slices.ContainsFunc(peers, func(p string) bool { return !i.tried[p] })
		changed := i.changed
		i.mu.Unlock()
		if !missing {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// greet does both sides; it is symmetric. extended says that both sides speak of
// levels. The connection is not closed.
func (i *introduction) greet(conn net.Conn, peer string, extended bool, deadline time.Time) error {
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	mine := i.self()
	hello := append([]byte(nil), lineageMagic[:]...)
	hello = binary.BigEndian.AppendUint64(hello, mine.clusterID)
	hello = binary.BigEndian.AppendUint64(hello, mine.incarnation)
	if _, err := conn.Write(hello); err != nil {
		return fmt.Errorf("tell member %q this member's lineage: %w", peer, err)
	}
	var answer [24]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return fmt.Errorf("hear the lineage of member %q: %w", peer, err)
	}
	if [8]byte(answer[:8]) != lineageMagic {
		return fmt.Errorf("member %q does not tell its lineage: it runs another version of tripod-hub; upgrade it", peer)
	}
	theirs := lineage{binary.BigEndian.Uint64(answer[8:]), binary.BigEndian.Uint64(answer[16:])}
	if err := compare(mine, theirs, peer); err != nil {
		if theirs.clusterID == mine.clusterID && theirs.incarnation > mine.incarnation {
			if i.behind.CompareAndSwap(0, theirs.incarnation) {
				i.remember(theirs.incarnation)
			}
		}
		return err
	}
	if err := i.compareLevels(conn, peer, extended); err != nil {
		return err
	}
	return conn.SetDeadline(time.Time{})
}

// leftBehind says that the hub has gone on without this member; nil if it has not.
func (i *introduction) leftBehind() error {
	newer := i.behind.Load()
	if newer == 0 {
		return nil
	}
	return fmt.Errorf("%w: this member is of incarnation %d, the hub of %d: stop this member, empty its data folder, and let it join as new: tripodctl hub add",
		ErrLeftBehind, i.self().incarnation, newer)
}
