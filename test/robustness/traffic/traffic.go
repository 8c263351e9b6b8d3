// Package traffic is what clients do to a fleet while faults happen to it, and
// records what they see.
package traffic

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"tripod.dev/tripod/test/robustness/model"
	"tripod.dev/tripod/test/storefleet"
)

// Registers and Leased begin the keys that requests are about, and those that
// live as long as a lease.
const (
	Registers = "r/"
	Leased    = "l/"
)

// registers is how many keys there are: few, so that clients meet.
const registers = 8

// patience bounds one request. It is shorter than the store's own time-out, so
// that some writes are given up while they are under way; some reads have to be
// more patient than an election takes.
const patience = 4 * time.Second

// pause is between two requests of a client, at the most.
const pause = 40 * time.Millisecond

// Traffic is the clients of one run.
type Traffic struct {
	recorder *recorder
	fleet    *storefleet.Fleet
	seed     uint64
	clients  []*clientv3.Client
	working  sync.WaitGroup
	stop     context.CancelFunc
	// watching goes on after the other clients have stopped.
	watching  sync.WaitGroup
	stopWatch context.CancelFunc
}

// Start begins: two clients, a watcher of everything and one of pieces of the past
// on every member, and over all of them one that keeps leases and one that
// compacts.
func Start(ctx context.Context, fleet *storefleet.Fleet, seed uint64) (*Traffic, error) {
	t := &Traffic{recorder: newRecorder(), fleet: fleet, seed: seed}
	working, stop := context.WithCancel(ctx)
	watching, stopWatch := context.WithCancel(ctx)
	t.stop, t.stopWatch = stop, stopWatch
	for i, member := range fleet.Members {
		c, err := fleet.Client(member)
		if err != nil {
			t.Stop()
			return nil, err
		}
		t.clients = append(t.clients, c)
		t.recorder.collected(member.Name(), 0)
		t.watching.Go(func() { t.collect(watching, member.Name(), c) })
		t.working.Go(func() { t.browse(working, t.random(300+i), member.Name(), c) })
		for j := range 2 {
			id := 2*i + j
			t.working.Go(func() { t.request(working, t.random(id), id, member.Name(), c) })
		}
		t.working.Go(func() { t.keep(working, t.random(100+i), 100+i, member.Name(), c) })
	}
	all, err := fleet.Client()
	if err != nil {
		t.Stop()
		return nil, err
	}
	t.clients = append(t.clients, all)
	t.working.Go(func() { t.compact(working, t.random(200), all) })
	return t, nil
}

func (t *Traffic) random(stream int) *rand.Rand { return rand.New(rand.NewPCG(t.seed, uint64(stream))) }

// Stop ends all clients.
func (t *Traffic) Stop() {
	t.stop()
	t.working.Wait()
	t.stopWatch()
	t.watching.Wait()
	for _, c := range t.clients {
		_ = c.Close()
	}
}

// Finish ends the requests, waits until every lease that nobody renews is over and
// every watcher has seen everything, and returns the history. All members must be
// well. An error says what did not happen in time.
func (t *Traffic) Finish(ctx context.Context) (*model.History, error) {
	t.stop()
	t.working.Wait()
	err := t.settle(ctx)
	t.Stop()
	h := t.recorder.history
	slices.SortStableFunc(h.Operations, func(a, b model.Operation) int { return int(a.Call - b.Call) })
	return &h, err
}

func (t *Traffic) settle(ctx context.Context) error {
	all := t.clients[len(t.clients)-1]
	var revision int64
	if err := eventually(ctx, "every lease that is not renewed is over", func() bool {
		attempt, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		r, err := all.Get(attempt, Leased, clientv3.WithPrefix())
		if err != nil || r.Count > 0 {
			return false
		}
		revision = r.Header.Revision
		return true
	}); err != nil {
		return err
	}
	if err := eventually(ctx, "every watch has told everything", func() bool {
		told, _ := t.recorder.known()
		return told >= revision
	}); err != nil {
		return err
	}
	return t.finals(ctx, revision)
}

// finals asks every member for the hash of its state. A compaction that nobody was
// told of may still be on its way to some.
func (t *Traffic) finals(ctx context.Context, revision int64) error {
	var members []model.Final
	err := eventually(ctx, "every member tells the hash of its state since the same compaction", func() bool {
		members = nil
		for i, member := range t.fleet.Members {
			final, err := t.final(ctx, t.clients[i], member, revision)
			if err != nil {
				return false
			}
			members = append(members, final)
		}
		return !slices.ContainsFunc(members, func(f model.Final) bool { return f.Compacted != members[0].Compacted })
	})
	t.recorder.note(func(h *model.History) { h.Members = members })
	return err
}

func (t *Traffic) final(ctx context.Context, c *clientv3.Client, member *storefleet.Member, revision int64) (model.Final, error) {
	attempt, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := c.Get(attempt, "final"); err != nil {
		return model.Final{}, err
	}
	r, err := c.HashKV(attempt, member.URL(), revision)
	if err != nil {
		return model.Final{}, err
	}
	return model.Final{Member: member.Name(), Revision: r.HashRevision, Compacted: r.CompactRevision, Hash: r.Hash}, nil
}

// Counts tells how many operations there were, by kind and outcome.
func Counts(h *model.History) map[string]int {
	counts := map[string]int{}
	for _, o := range h.Operations {
		outcome := "done"
		if o.Response == nil {
			outcome = "unknown"
		}
		counts[fmt.Sprintf("%s %s", o.Kind, outcome)]++
	}
	for _, p := range h.PastReads {
		outcome := "done"
		if p.Compacted {
			outcome = "compacted"
		}
		counts["pastRead "+outcome]++
	}
	for _, c := range h.Compactions {
		outcome := "unknown"
		if c.Done {
			outcome = "done"
		}
		counts["compact "+outcome]++
	}
	for _, l := range h.Leases {
		counts["lease granted"]++
		for _, r := range l.Renewals {
			if r.Alive {
				counts["lease renewed"]++
			} else {
				counts["lease renewal refused"]++
			}
		}
	}
	for _, w := range h.Watches {
		counts["watch opened"]++
		for _, r := range w.Responses {
			counts["watch event"] += len(r.Events)
			if r.Progress {
				counts["watch progress"]++
			}
			if r.Compacted > 0 {
				counts["watch compacted"]++
			}
		}
	}
	return counts
}

func eventually(ctx context.Context, what string, condition func() bool) error {
	for !condition() {
		if !rest(ctx, 50*time.Millisecond) {
			return fmt.Errorf("not in time: %s", what)
		}
	}
	return nil
}

// rest waits; false if ctx is done.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
