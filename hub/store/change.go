package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	raftlogv1 "tripod.dev/tripod/proto/raftlog/v1"
)

// Standing is how far a member is, as it told this one.
type Standing struct {
	AppliedIndex uint64
	Revision     int64
	Incarnation  uint64
	// CommandVersion is the highest level of the command set that it understands,
	// Version that of its program.
	CommandVersion uint32
	Version        string
	// DatabaseBytes is the size of its file, UsedBytes the part in use.
	DatabaseBytes, UsedBytes int64
}

// standing describes this member.
func (s *Store) standing() *raftlogv1.StandingResponse {
	size, used := s.Maintenance().Size()
	applied := s.AppliedIndex() // before the levels; see differ
	return &raftlogv1.StandingResponse{
		AppliedIndex: applied, Revision: s.Revision(), Incarnation: s.Incarnation(),
		CommandVersion: s.Understands(), Version: s.cfg.Version, RaisedAt: s.machine.raised().raisedAt(),
		LevelWaits:    s.Membership().LevelWaits(),
		DatabaseBytes: size, UsedBytes: used,
	}
}

// Standing asks the member called name, this one too, how far it is.
func (m *Membership) Standing(ctx context.Context, name string) (Standing, error) {
	answer := m.store.standing()
	if name != m.Self() {
		var err error
		if answer, err = m.store.peers.standing(ctx, name); err != nil {
			return Standing{}, fmt.Errorf("ask member %q how far it is: %w", name, err)
		}
	}
	return Standing{
		AppliedIndex: answer.GetAppliedIndex(), Revision: answer.GetRevision(), Incarnation: answer.GetIncarnation(),
		CommandVersion: answer.GetCommandVersion(), Version: answer.GetVersion(), DatabaseBytes: answer.GetDatabaseBytes(), UsedBytes: answer.GetUsedBytes(),
	}, nil
}

// Knows says whether name is a member, or recorded to become one.
func (m *Membership) Knows(name string) bool {
	return m.store.book.record(name) != nil || slices.ContainsFunc(m.List(), func(i MemberInfo) bool { return i.Name == name })
}

// Add records where the member is found and makes it a non-voter; the record
// comes first, so that whoever sees the member can reach it. Leader only
// (ErrNotLeader). The caller has checked that it may join.
func (m *Membership) Add(ctx context.Context, member Member, replaces string) error {
	return m.change(func() error {
		if _, err := m.store.Propose(ctx, putRecord(membersPrefix+member.Name, recordOf(member, replaces))); err != nil {
			return fmt.Errorf("record member %q: %w", member.Name, err)
		}
		return m.store.configure(ctx, func(timeout time.Duration) raft.Future {
			return m.store.raft.AddNonvoter(raft.ServerID(member.Name), raft.ServerAddress(member.RaftAddress), 0, timeout)
		})
	})
}

// Promote gives a non-voter its vote. Leader only (ErrNotLeader).
func (m *Membership) Promote(ctx context.Context, name string) error {
	member, ok := m.store.book.lookup(name)
	if !ok {
		return fmt.Errorf("store: member %q is not in the address book: add it first", name)
	}
	return m.change(func() error {
		return m.store.configure(ctx, func(timeout time.Duration) raft.Future {
			return m.store.raft.AddVoter(raft.ServerID(name), raft.ServerAddress(member.RaftAddress), 0, timeout)
		})
	})
}

// Remove takes the member out of the configuration, and then out of the address
// book. Leader only, and not the leader itself: hand the leadership over first.
func (m *Membership) Remove(ctx context.Context, name string) error {
	if name == m.Self() {
		return fmt.Errorf("store: member %q leads and does not remove itself: transfer the leadership first", name)
	}
	return m.change(func() error {
		if err := m.store.configure(ctx, func(timeout time.Duration) raft.Future {
			return m.store.raft.RemoveServer(raft.ServerID(name), 0, timeout)
		}); err != nil {
			return err
		}
		if _, err := m.store.Propose(ctx, dropRecord(membersPrefix+name)); err != nil {
			return fmt.Errorf("drop the record of member %q: %w", name, err)
		}
		return nil
	})
}

// Reconcile brings the address book in line with the Raft configuration: it
// records members that only a configuration file knows, drops records of those
// that are no members (a change that was cut short). Leader only.
func (m *Membership) Reconcile(ctx context.Context) error {
	return m.change(func() error {
		members := m.List()
		var errs []error
		for _, info := range members {
			have := m.store.book.record(info.Name)
			want := recordOf(info.Member, info.Replaces)
			if info.Voter && !slices.ContainsFunc(members, func(i MemberInfo) bool { return i.Name == info.Replaces }) {
				want.Replaces = "" // done
			}
			if have != nil && proto.Equal(have, want) {
				continue
			}
			_, err := m.store.Propose(ctx, putRecord(membersPrefix+info.Name, want))
			errs = append(errs, err)
		}
		for _, record := range m.store.book.records() {
			if !slices.ContainsFunc(members, func(i MemberInfo) bool { return i.Name == record.GetName() }) {
				_, err := m.store.Propose(ctx, dropRecord(membersPrefix+record.GetName()))
				errs = append(errs, err)
			}
		}
		if err := errors.Join(errs...); err != nil {
			return fmt.Errorf("reconcile the address book: %w", err)
		}
		return nil
	})
}

// change runs one change of the membership at a time, on a leader that has
// applied everything before it.
func (m *Membership) change(do func() error) error {
	m.store.changing.Lock()
	defer m.store.changing.Unlock()
	if !m.store.IsLeader() {
		return ErrNotLeader
	}
	return do()
}

// configure changes the Raft configuration and returns when that is committed.
// A change whose fate is unknown may still be committed: look before repeating.
func (s *Store) configure(ctx context.Context, request func(timeout time.Duration) raft.Future) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.cfg.RequestTimeout, ErrTimeout)
	defer cancel()
	deadline, _ := ctx.Deadline()
	done := make(chan error, 1)
	go func() { done <- request(max(time.Until(deadline), time.Millisecond)).Error() }()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("change the members of the hub: %w", s.proposer.explain(err))
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("change the members of the hub: %w", ended(ctx))
	}
}
