package store

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	raftlogv1 "tripod.dev/tripod/proto/raftlog/v1"
)

const (
	// raiseInterval is how often a leader that understands more than is in force
	// asks the members what they understand, and raisePatience how long each may
	// take to answer.
	raiseInterval = time.Second
	raisePatience = time.Second
)

// raiser raises the level of the command set, on the leader: one step at a time,
// and only when every member of the Raft configuration, with a vote or without,
// has just said that it understands the next. A member that comes later learns the
// level before it applies anything, and refuses.
type raiser struct {
	store *Store
	log   *slog.Logger
	// waits is what the next level waits for, as found last.
	waits atomic.Pointer[string]
}

func (r *raiser) run(ctx context.Context) {
	tick := time.NewTicker(raiseInterval)
	defer tick.Stop()
	changes := r.store.leaders.subscribe(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-changes:
		}
		for ctx.Err() == nil && r.store.IsLeader() && r.step(ctx) {
		}
	}
}

// step raises the level once, if it can; then there may be another step.
func (r *raiser) step(ctx context.Context) bool {
	next := r.store.Level() + 1
	if next > r.store.Understands() {
		r.note("")
		return false
	}
	members := r.store.Membership().List()
	announced := r.ask(ctx, members)
	if ctx.Err() != nil {
		return false
	}
	if waits := waitsFor(next, r.store.Incarnation(), members, announced); waits != "" {
		r.note(waits)
		return false
	}
	if err := r.raise(ctx, next, members, announced); err != nil {
		r.note(err.Error())
		return false
	}
	return true
}

// note keeps what the next level waits for, and says it when it changes.
func (r *raiser) note(waits string) {
	before := r.waits.Swap(&waits)
	if waits != "" && (before == nil || *before != waits) {
		r.log.Info("the next level of the command set waits", "level", r.store.Level(), "for", waits)
	}
}

// announcement is what a member said of itself; nil when it did not answer.
type announcement = *raftlogv1.StandingResponse

// ask asks every member at once.
func (r *raiser) ask(ctx context.Context, members []MemberInfo) map[string]announcement {
	ctx, cancel := context.WithTimeout(ctx, raisePatience)
	defer cancel()
	var mu sync.Mutex
	var asking sync.WaitGroup
	heard := map[string]announcement{}
	for _, m := range members {
		if m.Name == r.store.cfg.Name {
			mu.Lock()
			heard[m.Name] = r.store.standing()
			mu.Unlock()
			continue
		}
		asking.Go(func() {
			if answer, err := r.store.peers.standing(ctx, m.Name); err == nil {
				mu.Lock()
				defer mu.Unlock()
				heard[m.Name] = answer
			}
		})
	}
	asking.Wait()
	return heard
}

// waitsFor says why level next cannot come into force yet; empty if it can. It is a
// pure function.
func waitsFor(next uint32, incarnation uint64, members []MemberInfo, announced map[string]announcement) string {
	var waits []string
	for _, m := range members {
		said := announced[m.Name]
		switch {
		case said == nil:
			waits = append(waits, m.Name+" does not answer")
		case said.GetIncarnation() != 0 && said.GetIncarnation() != incarnation:
			waits = append(waits, fmt.Sprintf("%s is of incarnation %d", m.Name, said.GetIncarnation()))
		case said.GetCommandVersion() < next:
			waits = append(waits, fmt.Sprintf("%s runs %s, which understands level %d", m.Name, versionText(said.GetVersion()), said.GetCommandVersion()))
		}
	}
	if len(members) == 0 {
		return "no members are known"
	}
	slices.Sort(waits)
	return strings.Join(waits, "; ")
}

func versionText(version string) string {
	if version == "" {
		return "a program without a version"
	}
	return version
}

// raise proposes the next level, if the members are still those that were asked: no
// change of the membership by this leader comes between.
func (r *raiser) raise(ctx context.Context, next uint32, asked []MemberInfo, announced map[string]announcement) error {
	s := r.store
	return s.Membership().change(func() error {
		for _, m := range s.Membership().List() {
			if !slices.ContainsFunc(asked, func(a MemberInfo) bool { return a.Name == m.Name }) {
				return fmt.Errorf("%s has just become a member and has not been asked", m.Name)
			}
		}
		command := &raftlogv1.RaiseLevel{Level: next}
		for _, m := range asked {
			said := announced[m.Name]
			command.Members = append(command.Members, &raftlogv1.Announcement{Member: m.Name, Level: said.GetCommandVersion(), Version: said.GetVersion()})
		}
		op := raiseLevel(command)
		data, err := op.at(next, 0)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeoutCause(ctx, s.cfg.RequestTimeout, ErrTimeout)
		defer cancel()
		result, _, err := s.proposer.append(ctx, data, op.command)
		if err != nil {
			return fmt.Errorf("raise the level to %d: %w", next, err)
		}
		return result.Err
	})
}
