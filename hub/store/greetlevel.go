package store

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
)

// protocolLevels is the ALPN name by which both ends of a Raft connection know
// that they tell each other their levels after their lineages. A build that knows
// no levels offers and takes none, and understands the first.
const protocolLevels = "tripod-raft/2"

// tellLevels is what a member tells of the command set.
type tellLevels struct {
	member string
	// level is in force, as applied; understands is the highest one that it may
	// apply.
	level, understands uint32
	// stop ends this member: the hub has gone on without its program.
	stop func(error)
}

// tells is what this member tells of the command set.
func (s *machine) tells() tellLevels {
	return tellLevels{member: s.member, level: s.level(), understands: s.understands, stop: s.halt}
}

// compareLevels lets a member speak Raft only if it understands what is in force at
// the other end. One that learns that it is too old itself stops; what it has
// applied stays good.
func (i *introduction) compareLevels(conn net.Conn, peer string, extended bool) error {
	mine := i.levels()
	theirs := tellLevels{member: peer, level: firstLevel, understands: firstLevel}
	if extended {
		hello := binary.BigEndian.AppendUint32(nil, mine.level)
		hello = binary.BigEndian.AppendUint32(hello, mine.understands)
		if _, err := conn.Write(hello); err != nil {
			return fmt.Errorf("tell member %q this member's level: %w", peer, err)
		}
		var answer [8]byte
		if _, err := io.ReadFull(conn, answer[:]); err != nil {
			return fmt.Errorf("hear the level of member %q: %w", peer, err)
		}
		theirs.level, theirs.understands = binary.BigEndian.Uint32(answer[:]), binary.BigEndian.Uint32(answer[4:])
	}
	if mine.understands < theirs.level {
		err := &tooOldError{member: mine.member, understands: mine.understands, level: theirs.level, met: "the hub, as member " + peer + " has it,"}
		mine.stop(fmt.Errorf("store: %w", err))
		return err
	}
	if theirs.understands < mine.level {
		return &tooOldError{member: peer, understands: theirs.understands, level: mine.level, met: "the hub"}
	}
	return nil
}
