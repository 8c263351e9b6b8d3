// Package fault does to a fleet what happens to machines, disks and networks, and
// mends it again.
package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/test/storefleet"
	"tripod.dev/tripod/test/storefleet/failpoint"
)

// Fleet is a fleet that faults happen to. One goroutine uses it.
type Fleet struct {
	*storefleet.Fleet
	Network *Network
	// Disks are the folders of members that have a small disk of their own.
	Disks map[string]*Disk
	// Acted counts failpoints that acted, by point and action.
	Acted map[string]int
	// endangered members may end by what is done to them.
	endangered map[*storefleet.Member]bool
}

// New lets faults happen to fleet, whose members reach each other over network.
func New(fleet *storefleet.Fleet, network *Network, disks map[string]*Disk) *Fleet {
	return &Fleet{Fleet: fleet, Network: network, Disks: disks, Acted: map[string]int{}, endangered: map[*storefleet.Member]bool{}}
}

// Kind is one kind of fault.
type Kind struct {
	Name string
	// disk: it needs members with small disks.
	disk bool
	// clock: it needs members whose wall clock can be moved.
	clock bool
	// do makes the fault, lets it last, and may leave what Mend mends.
	do func(ctx context.Context, f *Fleet, random *rand.Rand) error
}

// Kinds lists all kinds. Their order is part of what a seed means.
var Kinds = []Kind{
	{Name: "kill leader", do: kill(leader)},
	{Name: "kill follower", do: kill(follower)},
	{Name: "kill majority", do: killMajority},
	{Name: "kill all", do: killAll},
	{Name: "end leader", do: end},
	{Name: "move leadership", do: moveLeadership},
	{Name: "pause leader", do: pause(leader)},
	{Name: "pause follower", do: pause(follower)},
	{Name: "pause leader and cut", do: pauseAndCut},
	{Name: "cut leader", do: cut(leader, true, true)},
	{Name: "cut to leader", do: cut(leader, true, false)},
	{Name: "cut from leader", do: cut(leader, false, true)},
	{Name: "cut follower", do: cut(follower, true, true)},
	{Name: "cut to follower", do: cut(follower, true, false)},
	{Name: "cut from follower", do: cut(follower, false, true)},
	{Name: "cut leader from one", do: cutPair},
	{Name: "slow follower", do: slow(follower)},
	{Name: "slow leader", do: slow(leader)},
	{Name: "reset connections", do: reset},
	{Name: "follower falls behind", do: fallBehind},
	{Name: "crash in restore", do: crashInRestore},
	{Name: "crash at point", do: point(failpoint.Crash)},
	{Name: "error at point", do: point(failpoint.Error)},
	{Name: "delay at point", do: point(failpoint.Delay)},
	{Name: "disk full at leader", disk: true, do: fill(leader)},
	{Name: "disk full at follower", disk: true, do: fill(follower)},
	{Name: "defragment", do: defragment(false)},
	{Name: "kill in defragmentation", do: defragment(true)},
	{Name: "wall clocks jump", clock: true, do: jump},
}

// Step is one fault of a schedule.
type Step struct {
	Kind Kind
	Seed uint64
	// Before is how long all is well before it.
	Before time.Duration
}

// Schedule draws n faults, of those with these names or of all.
func Schedule(random *rand.Rand, n int, disks, clocks bool, names ...string) []Step {
	kinds := slices.DeleteFunc(slices.Clone(Kinds), func(k Kind) bool {
		return k.disk && !disks || k.clock && !clocks || len(names) > 0 && !slices.Contains(names, k.Name)
	})
	var steps []Step
	for range n {
		steps = append(steps, Step{
			Kind: kinds[random.IntN(len(kinds))], Seed: random.Uint64(),
			Before: time.Duration(200+random.IntN(800)) * time.Millisecond,
		})
	}
	return steps
}

// Do makes the fault of a step, lets it last and mends it. An error means that the
// fleet did not get well again.
func (f *Fleet) Do(ctx context.Context, s Step) error {
	rest(ctx, s.Before)
	if err := s.Kind.do(ctx, f, rand.New(rand.NewPCG(s.Seed, 0))); err != nil {
		return fmt.Errorf("%s: %w", s.Kind.Name, err)
	}
	if err := f.Mend(ctx); err != nil {
		return fmt.Errorf("after %s: %w", s.Kind.Name, err)
	}
	return nil
}

// recovery bounds how long a fleet that was mended may take to serve again.
const recovery = 30 * time.Second

// Mend ends everything that is wrong and waits until every member serves. Members
// that have ended are started again, which is an error if nothing was done to them.
func (f *Fleet) Mend(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, recovery)
	defer cancel()
	f.Network.Heal()
	for _, d := range f.Disks {
		if err := d.Free(); err != nil {
			return err
		}
	}
	for _, m := range f.Members {
		if err := m.MoveWall(0); err != nil {
			return err
		}
		if m.Running() {
			if err := m.Signal(syscall.SIGCONT); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return err
			}
			f.disarm(ctx, m)
		}
		if err := f.restart(m); err != nil {
			return err
		}
	}
	for _, m := range f.Members {
		// What was done to it may end a member a little later.
		for !f.serves(ctx, m) {
			if err := f.restart(m); err != nil {
				return err
			}
			if ctx.Err() != nil {
				return fmt.Errorf("%s does not serve within %s: its log is in %s", m.Name(), recovery, m.Folder)
			}
			rest(ctx, 20*time.Millisecond)
		}
	}
	clear(f.endangered)
	return nil
}

// restart starts a member that does not run.
func (f *Fleet) restart(m *storefleet.Member) error {
	if m.Running() {
		return nil
	}
	if m.Ended() && !f.endangered[m] {
		return fmt.Errorf("%s ended though nothing was done to it: its log is in %s", m.Name(), m.Folder)
	}
	if err := m.Kill(); err != nil { // takes leave of a process that ended
		return err
	}
	return m.Start()
}

func (f *Fleet) serves(ctx context.Context, m *storefleet.Member) bool {
	if !m.Running() {
		return false
	}
	attempt, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return m.Serves(attempt) == nil
}

// disarm disarms what is armed; a member that has just ended has nothing armed.
func (f *Fleet) disarm(ctx context.Context, m *storefleet.Member) {
	attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_ = Control(m).Disarm(attempt)
}

// Control is where m's failpoints are armed.
func Control(m *storefleet.Member) failpoint.Client {
	return failpoint.Client{Socket: filepath.Join(m.Folder, "control")}
}

// target picks a member.
type target func(ctx context.Context, f *Fleet, random *rand.Rand) (*storefleet.Member, error)

func leader(ctx context.Context, f *Fleet, _ *rand.Rand) (*storefleet.Member, error) {
	return f.AwaitLeader(ctx)
}

func follower(ctx context.Context, f *Fleet, random *rand.Rand) (*storefleet.Member, error) {
	l, err := f.AwaitLeader(ctx)
	if err != nil {
		return nil, err
	}
	return f.others(l)[random.IntN(len(f.Members)-1)], nil
}

func anyone(_ context.Context, f *Fleet, random *rand.Rand) (*storefleet.Member, error) {
	return f.Members[random.IntN(len(f.Members))], nil
}

func (f *Fleet) others(m *storefleet.Member) []*storefleet.Member {
	var others []*storefleet.Member
	for _, other := range f.Members {
		if other != m {
			others = append(others, other)
		}
	}
	return others
}

// between is a duration from a to b milliseconds.
func between(random *rand.Rand, a, b int) time.Duration {
	return time.Duration(a+random.IntN(b-a)) * time.Millisecond
}

// rest lets time pass: how long a fault lasts is part of the schedule.
func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// rare are the points that need something rare to be reached.
var rare = map[store.Point]bool{
	store.BeforeRestore: true, store.DuringRestore: true, store.AfterRestore: true, store.BeforeDefragment: true, store.AfterDefragment: true,
}
