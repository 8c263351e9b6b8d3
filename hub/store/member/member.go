// Package member shows and changes the membership of the hub: who the members
// are, how far this one is, who leads. Joining, leaving and replacing members,
// backup and recovery belong here too.
package member

import (
	"context"
	"fmt"
	"slices"
	"time"

	"tripod.dev/tripod/hub/store"
)

// Member is one member of the hub.
type Member struct {
	Name        string
	RaftAddress string
	PeerAddress string
	Voter       bool
	Leader      bool
}

// Status is one member's view of the hub.
type Status struct {
	// Name of the member whose view it is.
	Name        string
	Leader      string
	Term        uint64
	Incarnation uint64
	Members     []Member

	CommitIndex, AppliedIndex uint64
	Revision                  int64
	// DatabaseBytes is the size of the database file, UsedBytes the part in use,
	// FreeBytes what the file system has left.
	DatabaseBytes, UsedBytes int64
	FreeBytes                uint64
	// SilentFor is how long this member has not heard from a leader; 0 on the
	// leader.
	SilentFor time.Duration
	// Problems in words, each with its remedy; empty if all is well.
	Problems []string
}

// source is what this package needs of a store.
type source interface {
	Leadership() store.Leadership
	Membership() *store.Membership
	Maintenance() *store.Maintenance
}

// View is the membership as one member sees it.
type View struct{ store source }

// New returns the view of s.
func New(s *store.Store) *View { return &View{store: s} }

// Status describes the hub as of now, measured against now.
func (v *View) Status(now time.Time) Status {
	membership := v.store.Membership()
	leadership := v.store.Leadership()
	progress := membership.Progress()
	size, used := v.store.Maintenance().Size()
	s := Status{
		Name: membership.Self(), Leader: leadership.Leader, Term: progress.Term, Incarnation: progress.Incarnation,
		CommitIndex: progress.CommitIndex, AppliedIndex: progress.AppliedIndex, Revision: progress.Revision,
		DatabaseBytes: size, UsedBytes: used, FreeBytes: progress.FreeBytes,
		Problems: v.store.Maintenance().Alarms(),
	}
	for _, m := range membership.List() {
		s.Members = append(s.Members, Member{
			Name: m.Name, RaftAddress: m.RaftAddress, PeerAddress: m.PeerAddress, Voter: m.Voter, Leader: m.Leader,
		})
	}
	if leadership.Leader != s.Name && !progress.LastContact.IsZero() {
		s.SilentFor = max(now.Sub(progress.LastContact), 0)
	}
	inHub := slices.ContainsFunc(s.Members, func(m Member) bool { return m.Name == s.Name })
	switch {
	case leadership.Leader != "":
	case len(s.Members) > 0 && !inHub:
		s.Problems = append(s.Problems, fmt.Sprintf(
			"member %s is not in the hub any more: stop it and empty its data folder; tripodctl hub add lets it join as new", s.Name))
	default:
		s.Problems = append(s.Problems, fmt.Sprintf(
			"member %s knows no leader: of %d voters a majority must run and reach each other on their Raft addresses", s.Name, voters(s.Members)))
	}
	return s
}

func voters(members []Member) int {
	n := 0
	for _, m := range members {
		if m.Voter {
			n++
		}
	}
	return n
}

// Transfer makes the member called to the leader. Only the leader can
// (store.ErrNotLeader); it returns when the other one has been told.
func (v *View) Transfer(ctx context.Context, to string) error {
	return v.store.Membership().Transfer(ctx, to)
}
