package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/etcd/server/v3/storage/backend"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"google.golang.org/protobuf/proto"

	raftlogv1 "tripod.dev/tripod/proto/raftlog/v1"
)

// The command set grows by levels (proto/raftlog/v1/command.proto). Which one is
// in force is a committed fact: nobody proposes what is above it, and it is raised
// when every member has said that it understands the next one.
const (
	// CommandVersion is the highest level of the command set that this build
	// understands.
	CommandVersion = LevelPledges
	// firstLevel is in force until the first raise.
	firstLevel = 1
	// levelIncarnation brought RaiseLevel, and the incarnation in commands;
	// levelAlarm, together with it, the alarm.
	levelIncarnation = 2
	levelAlarm       = levelIncarnation
	// LevelPledges brought no command. While it is in force no member takes the end
	// of a lease alone for a proof that a primary has stopped: an older program does.
	LevelPledges = 3
)

// levelsKey is in etcd's meta bucket: RaisedLevels, encoded.
var levelsKey = []byte("tripodLevels")

// ErrTooOld is matched by the error of a member whose program does not understand
// what the hub writes.
var ErrTooOld = errors.New("this tripod-hub is too old for the hub")

// tooOldError says which member, what it understands, and what it met.
type tooOldError struct {
	member      string
	understands uint32
	level       uint32
	// met is what is of that level.
	met string
	// members is what the members ran when the level was raised; may be empty.
	members []*raftlogv1.Announcement
}

func (e *tooOldError) Error() string {
	ran := ""
	if versions := versionsOf(e.members, e.level); len(versions) > 0 {
		ran = fmt.Sprintf(" (the members ran %s then)", strings.Join(versions, " and "))
	}
	return fmt.Sprintf("member %q understands the command set up to level %d, and %s is of level %d%s: "+
		"there is no way back below it; install the tripod-hub that the other members run (tripodctl hub members shows their versions) and start it on the same data: nothing is lost",
		e.member, e.understands, e.met, e.level, ran)
}

// Is implements errors.Is for ErrTooOld.
func (e *tooOldError) Is(target error) bool { return target == ErrTooOld }

// versionsOf are the programs that were said to understand level.
func versionsOf(members []*raftlogv1.Announcement, level uint32) []string {
	var out []string
	for _, m := range members {
		if m.GetLevel() >= level && m.GetVersion() != "" && !slices.Contains(out, m.GetVersion()) {
			out = append(out, m.GetVersion())
		}
	}
	slices.Sort(out)
	return out
}

// levels are those that were brought into force, in order from level 2.
type levels []*raftlogv1.RaisedLevel

// top is the level in force.
func (l levels) top() uint32 { return firstLevel + uint32(len(l)) }

// raisedAt are the indexes of the entries that raised it.
func (l levels) raisedAt() []uint64 {
	var out []uint64
	for _, raised := range l {
		out = append(out, raised.GetIndex())
	}
	return out
}

func readLevels(tx backend.UnsafeReader) (levels, error) {
	_, values := tx.UnsafeRange(schema.Meta, levelsKey, nil, 0)
	if len(values) == 0 {
		return nil, nil
	}
	return decodeLevels(values[0])
}

func decodeLevels(data []byte) (levels, error) {
	record := &raftlogv1.RaisedLevels{}
	if err := proto.Unmarshal(data, record); err != nil {
		return nil, fmt.Errorf("decode the level of the command set: %w", err)
	}
	for i, raised := range record.GetLevels() {
		if raised.GetLevel() != firstLevel+1+uint32(i) {
			return nil, fmt.Errorf("decode the level of the command set: level %d is in the place of %d", raised.GetLevel(), firstLevel+1+i)
		}
	}
	return record.GetLevels(), nil
}

// level is the one in force, as applied here.
func (s *machine) level() uint32 { return s.raised().top() }

func (s *machine) raised() levels {
	if l := s.levels.Load(); l != nil {
		return *l
	}
	return nil
}

// understood says whether this member may hold state of these levels.
func (s *machine) understood(l levels, where string) error {
	if l.top() <= s.understands {
		return nil
	}
	return &tooOldError{member: s.member, understands: s.understands, level: l.top(), met: where, members: l[len(l)-1].GetMembers()}
}

// raiseLevel applies RaiseLevel. The caller has checked that this member
// understands it. Levels come one by one and never go.
func (s *machine) raiseLevel(index uint64, r *raftlogv1.RaiseLevel) error {
	now := s.raised()
	if r.GetLevel() != now.top()+1 {
		return fmt.Errorf("level %d of the command set refused: level %d is in force and the next is %d", r.GetLevel(), now.top(), now.top()+1)
	}
	next := append(slices.Clone(now), &raftlogv1.RaisedLevel{Level: r.GetLevel(), Index: index, Members: r.GetMembers()})
	data, err := proto.Marshal(&raftlogv1.RaisedLevels{Levels: next})
	if err != nil {
		return fmt.Errorf("encode the level of the command set: %w", err)
	}
	tx := s.be.BatchTx()
	tx.LockInsideApply()
	tx.UnsafePut(schema.Meta, levelsKey, data)
	tx.Unlock()
	s.levels.Store(&next)
	s.log.Info("the level of the command set was raised", "level", r.GetLevel(), "index", index)
	return nil
}

// admitted says whether a command may have effects: it must be of the level in
// force and of this incarnation. It depends on the state alone, so every member
// refuses alike.
func (s *machine) admitted(command *raftlogv1.Command) error {
	if _, raises := command.GetOp().(*raftlogv1.Command_RaiseLevel); raises {
		return nil // has a rule of its own
	}
	if level := s.level(); command.GetVersion() > level {
		return aboveLevel(command.GetVersion(), level)
	}
	if of := command.GetIncarnation(); of != 0 && of != s.incarnation.Load() {
		return fmt.Errorf("%w: the command was proposed in incarnation %d, and the hub is in %d", ErrLeftBehind, of, s.incarnation.Load())
	}
	return nil
}

func aboveLevel(wanted, level uint32) error {
	return fmt.Errorf("store: a command of level %d is not proposed while level %d is in force: upgrade every member of the hub first (tripodctl hub members shows what each understands)", wanted, level)
}

// differ says whether two members disagree on what raised the level. applied is
// how far each was before raised was read: what it lacks it may not have reached.
func differ(applied1 uint64, raised1 []uint64, applied2 uint64, raised2 []uint64) bool {
	for i := range max(len(raised1), len(raised2)) {
		switch {
		case i >= len(raised1):
			if raised2[i] <= applied1 {
				return true
			}
		case i >= len(raised2):
			if raised1[i] <= applied2 {
				return true
			}
		case raised1[i] != raised2[i]:
			return true
		}
	}
	return false
}

// Level is the level of the command set in force, as applied on this member, and
// Understands the highest one that this member understands.
func (s *State) Level() uint32 { return s.machine.level() }

// Understands is the highest level of the command set that this member
// understands.
func (s *State) Understands() uint32 { return s.machine.understands }

// LevelWaits says what the next level waits for, as the leader has found last;
// empty on other members, and when there is nothing to raise.
func (m *Membership) LevelWaits() string {
	if waits := m.store.raiser.waits.Load(); waits != nil && m.store.IsLeader() {
		return *waits
	}
	return ""
}
