package store

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// MemberInfo is one member of the Raft configuration.
type MemberInfo struct {
	Member
	Voter  bool
	Leader bool
	// Replaces is the member whose place this one takes when it has caught up.
	Replaces string
}

// ID is the number by which etcd's API calls the member.
func (m MemberInfo) ID() uint64 { return memberID(m.Name) }

// memberID is derived from the name, so that every member knows every other's.
func memberID(name string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	return h.Sum64()
}

// Progress is how far one member is.
type Progress struct {
	Term, CommitIndex, AppliedIndex, LastIndex uint64
	Revision                                   int64
	Incarnation                                uint64
	// LastContact is when the leader was last heard; zero on the leader itself.
	LastContact time.Time
	FreeBytes   uint64
	LowOnSpace  bool
}

// Membership is the view of the members.
type Membership struct{ store *Store }

// Self is this member's name.
func (m *Membership) Self() string { return m.store.cfg.Name }

// SelfID is this member's number in etcd's API.
func (m *Membership) SelfID() uint64 { return memberID(m.store.cfg.Name) }

// ClusterID is the hub's number in etcd's API, 0 before its first leader.
func (m *Membership) ClusterID() uint64 { return m.store.machine.clusterID.Load() }

// Term is Raft's present term.
func (m *Membership) Term() uint64 { return m.store.raft.CurrentTerm() }

// LeaderID is the leader's number in etcd's API, 0 if none is known.
func (m *Membership) LeaderID() uint64 {
	_, id := m.store.raft.LeaderWithID()
	if id == "" {
		return 0
	}
	return memberID(string(id))
}

// List returns the members of the latest Raft configuration.
func (m *Membership) List() []MemberInfo {
	_, leader := m.store.raft.LeaderWithID()
	var out []MemberInfo
	for _, server := range m.store.raft.GetConfiguration().Configuration().Servers {
		info := MemberInfo{
			Member: Member{Name: string(server.ID), RaftAddress: string(server.Address)},
			Voter:  server.Suffrage == raft.Voter,
			Leader: server.ID == leader,
		}
		if known, ok := m.store.book.lookup(info.Name); ok {
			info.Member = info.Member.better(known)
		}
		if record := m.store.book.record(info.Name); record != nil {
			info.Replaces = record.GetReplaces()
		}
		out = append(out, info)
	}
	return out
}

// Progress tells how far this member is.
func (m *Membership) Progress() Progress {
	r := m.store.raft
	return Progress{
		Term: r.CurrentTerm(), CommitIndex: r.CommitIndex(), LastIndex: r.LastIndex(),
		AppliedIndex: m.store.AppliedIndex(), Revision: m.store.Revision(), Incarnation: m.store.Incarnation(),
		LastContact: r.LastContact(),
		FreeBytes:   uint64(max(m.store.space.free.Load(), 0)), LowOnSpace: m.store.space.low.Load(),
	}
}

// Transfer moves leadership to the member called to, or to the one that is
// furthest if to is empty; only the leader can (ErrNotLeader). It returns when
// the other has been told to take over.
func (m *Membership) Transfer(ctx context.Context, to string) error {
	all := m.List()
	i := slices.IndexFunc(all, func(info MemberInfo) bool { return info.Name == to })
	if to != "" && i < 0 {
		return fmt.Errorf("store: no member is called %q: see the list of members", to)
	}
	if !m.store.IsLeader() {
		return ErrNotLeader
	}
	transfer := m.store.raft.LeadershipTransfer
	if to != "" {
		if to == m.Self() {
			return nil
		}
		transfer = func() raft.Future {
			return m.store.raft.LeadershipTransferToServer(raft.ServerID(to), raft.ServerAddress(all[i].RaftAddress))
		}
	}
	done := make(chan error, 1)
	go func() { done <- transfer().Error() }()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("transfer leadership to member %q: %w", cmp.Or(to, "that is furthest"), err)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
