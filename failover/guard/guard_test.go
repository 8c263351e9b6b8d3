package guard

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// database plays engine, copier, processes and store.
type database struct {
	mu       sync.Mutex
	exited   func(error)
	killedAt time.Time
	kills    int
	saved    []Memory
	full     bool
	stop     error         // what Stop answers
	starting chan struct{} // closed lets Start return
	writable bool
}

func (d *database) Start(ctx context.Context, _ agentv1.DatabaseMode, _ *agentv1.DatabaseSettings, exited func(error)) error {
	d.mu.Lock()
	d.exited = exited
	wait := d.starting
	d.mu.Unlock()
	if wait == nil {
		return nil
	}
	select {
	case <-wait:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
func (d *database) Promote(context.Context, *agentv1.DatabaseSettings) error   { return nil }
func (d *database) Configure(context.Context, *agentv1.DatabaseSettings) error { return nil }
func (d *database) Stop(context.Context) error                                 { return d.stop }
func (d *database) Writable() (bool, error)                                    { d.mu.Lock(); defer d.mu.Unlock(); return d.writable, nil }
func (d *database) Form(context.Context, *agentv1.DatabaseSettings) error      { return nil }
func (d *database) Measure(context.Context, *agentv1.SourceFacts) (*agentv1.Divergence, error) {
	return &agentv1.Divergence{}, nil
}
func (d *database) Rewind(context.Context, *agentv1.SourceFacts, int64) (bool, error) {
	return true, errors.New("the source went away")
}
func (d *database) Copy(context.Context, *agentv1.SourceFacts, int64, bool) error { return nil }
func (d *database) Position(context.Context) (string, int64, error)               { return "0/1", 1, nil }
func (d *database) Load(m any) error {
	if n := len(d.saved); n > 0 {
		*m.(*Memory) = d.saved[n-1]
	}
	return nil
}
func (d *database) Save(m any) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full {
		return errors.New("no space left on device")
	}
	d.saved = append(d.saved, m.(Memory))
	return nil
}
func (d *database) KillAll() []int {
	d.mu.Lock()
	exited := d.exited
	d.exited = nil
	d.kills++
	if d.killedAt.IsZero() {
		d.killedAt = time.Now()
	}
	d.mu.Unlock()
	if exited != nil {
		exited(errors.New("killed"))
	}
	return nil
}

func (d *database) killed() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.kills
}

func newGuard(t *testing.T, d *database) *Guard {
	t.Helper()
	began := time.Now()
	g, err := New(Config{Identity: Identity{"north-1", "pay", "ledger-db"}, Agents: []string{"127.0.0.1:1"}, Address: "10.0.0.1:5432",
		Clock: func() Instant { return Instant(time.Since(began)) }, Margin: margin},
		Parts{Engine: d, Copier: d, Processes: d, Store: d, Probe: func(context.Context) bool { return false }})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func prove(t *testing.T, g *Guard, role agentv1.Role, epoch int64, remaining time.Duration) {
	t.Helper()
	if err := g.learn(g.cfg.Clock(), proofOf(role, epoch, epoch, remaining), false); err != nil {
		t.Fatal(err)
	}
}

func TestKilledTheMarginBeforeTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &database{}
		g := newGuard(t, d)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go g.watch(ctx)
		prove(t, g, asPrimary, 1, 5*time.Second)
		began := time.Now()
		if r := (worker{g}).do(ctx, command(1, 0, &agentv1.StartPrimary{Form: true, Settings: &agentv1.DatabaseSettings{}})); r.GetOutcome() != agentv1.Outcome_OUTCOME_DONE {
			t.Fatal(r.GetMessage())
		}
		<-time.After(10 * time.Second) // the bubble's clock
		synctest.Wait()
		d.mu.Lock()
		killedAt := d.killedAt
		d.mu.Unlock()
		if lived := killedAt.Sub(began); killedAt.IsZero() || lived < 5*time.Second-margin || lived > 5*time.Second-margin+watchInterval {
			t.Errorf("killed after %v, want %v", lived, 5*time.Second-margin)
		}
		if s := g.Status(); s.GetMode() != agentv1.DatabaseMode_DATABASE_MODE_STOPPED || !s.GetEnforcing() {
			t.Errorf("status is %v", s)
		}
		cancel()
		synctest.Wait()
	})
}

func TestAStartThatOutlastsItsProofIsKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &database{starting: make(chan struct{})}
		g := newGuard(t, d)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go g.watch(ctx)
		prove(t, g, asPrimary, 1, 2*time.Second)
		cmd := command(1, 0, &agentv1.StartPrimary{Form: true, Settings: &agentv1.DatabaseSettings{}})
		cmd.DeadlineMillis = 5000
		if r := (worker{g}).do(ctx, cmd); r.GetOutcome() != agentv1.Outcome_OUTCOME_FAILED {
			t.Errorf("the start was %v", r.GetOutcome())
		}
		if d.killed() == 0 {
			t.Error("nothing was killed")
		}
		cancel()
		synctest.Wait()
	})
}

func TestAReplicaThatBecameWritableIsKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &database{saved: []Memory{{Formed: true, Standby: true}}}
		g := newGuard(t, d)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go g.watch(ctx)
		if r := (worker{g}).do(ctx, command(1, 0, &agentv1.StartReplica{Settings: &agentv1.DatabaseSettings{PrimaryAddress: "10.0.0.2:5432"}})); r.GetOutcome() != agentv1.Outcome_OUTCOME_DONE {
			t.Fatal(r.GetMessage())
		}
		<-time.After(time.Minute)
		if d.killed() != 0 {
			t.Fatal("a replica needs no proof")
		}
		d.mu.Lock()
		d.writable = true
		d.mu.Unlock()
		<-time.After(time.Second)
		if d.killed() == 0 {
			t.Error("a second writer lived")
		}
		cancel()
		synctest.Wait()
	})
}

func TestAFullDiskDoesNotStopAFence(t *testing.T) {
	d := &database{full: true}
	g := newGuard(t, d)
	r := (worker{g}).do(t.Context(), command(2, 0, &agentv1.FenceDatabase{}))
	if d.killed() == 0 {
		t.Error("a primary lived because the disk was full")
	}
	if r.GetOutcome() != agentv1.Outcome_OUTCOME_FAILED {
		t.Errorf("the fence was %v and is not remembered", r.GetOutcome())
	}
}

func TestACommandDoneTwiceIsDoneOnce(t *testing.T) {
	d := &database{}
	g := newGuard(t, d)
	for range 2 {
		if r := (worker{g}).do(t.Context(), command(2, 0, &agentv1.FenceDatabase{})); r.GetOutcome() != agentv1.Outcome_OUTCOME_DONE {
			t.Fatal(r.GetMessage())
		}
	}
	if d.killed() != 1 {
		t.Errorf("killed %d times", d.killed())
	}
}

func TestARewindThatDidNotFinishLeavesATornCopy(t *testing.T) {
	d := &database{saved: []Memory{{Formed: true, Held: 1}}}
	g := newGuard(t, d)
	if r := (worker{g}).do(t.Context(), command(2, 0, &agentv1.RewindCopy{})); r.GetOutcome() != agentv1.Outcome_OUTCOME_FAILED {
		t.Fatal(r)
	}
	again := newGuard(t, d)
	cmd := command(2, 0, &agentv1.StartReplica{Settings: &agentv1.DatabaseSettings{}})
	if r := (worker{again}).do(t.Context(), cmd); r.GetOutcome() != agentv1.Outcome_OUTCOME_REFUSED {
		t.Errorf("a torn copy was started after a restart: %v", r)
	}
}

func TestAClosedPrimaryStaysClosedWhateverHappensToItsGuard(t *testing.T) {
	for name, tc := range map[string]struct {
		stop    error
		outcome agentv1.Outcome
		kills   int
	}{
		"stopped in order":     {nil, agentv1.Outcome_OUTCOME_DONE, 0},
		"stopped out of order": {errors.New("planted"), agentv1.Outcome_OUTCOME_FAILED, 1},
	} {
		t.Run(name, func(t *testing.T) {
			d := &database{saved: []Memory{{Incarnation: 1, Epoch: 1, Formed: true, Held: 1}}, stop: tc.stop}
			g := newGuard(t, d)
			prove(t, g, asPrimary, 1, time.Minute)
			start := func(g *Guard, id string, revision int64) agentv1.Outcome {
				cmd := command(1, revision, &agentv1.StartPrimary{Settings: &agentv1.DatabaseSettings{}})
				cmd.Id = id
				return (worker{g}).do(t.Context(), cmd).GetOutcome()
			}
			if got := start(g, "start", 0); got != agentv1.Outcome_OUTCOME_DONE {
				t.Fatal(got)
			}
			r := (worker{g}).do(t.Context(), command(1, 7, &agentv1.CloseDatabase{}))
			if r.GetOutcome() != tc.outcome || d.killed() != tc.kills || !r.GetStatus().GetClosed() || r.GetStatus().GetMode() != agentv1.DatabaseMode_DATABASE_MODE_STOPPED {
				t.Fatalf("%v after %d kills", r, d.killed())
			}
			if position := r.GetStatus().GetPosition(); tc.stop == nil && position == "" {
				t.Error("it does not say where its log ends")
			}
			if got := start(g, "by itself", 0); got != agentv1.Outcome_OUTCOME_REFUSED {
				t.Errorf("started by itself: %v", got)
			}
			again := newGuard(t, d) // after a restart
			prove(t, again, asPrimary, 1, time.Minute)
			if got := start(again, "by itself", 0); got != agentv1.Outcome_OUTCOME_REFUSED {
				t.Errorf("started by itself after a restart: %v", got)
			}
			if got := start(again, "opened", 8); got != agentv1.Outcome_OUTCOME_DONE || again.Status().GetClosed() {
				t.Errorf("opened: %v, closed %v", got, again.Status().GetClosed())
			}
		})
	}
}

func TestAPromotionRemembersWhomItWasToldToWaitFor(t *testing.T) {
	d := &database{saved: []Memory{{Incarnation: 1, Epoch: 1, Formed: true, Standby: true}}}
	g := newGuard(t, d)
	if r := (worker{g}).do(t.Context(), command(1, 0, &agentv1.StartReplica{Settings: &agentv1.DatabaseSettings{PrimaryAddress: "10.0.0.2:5432"}})); r.GetOutcome() != agentv1.Outcome_OUTCOME_DONE {
		t.Fatal(r)
	}
	prove(t, g, asPrimary, 2, time.Minute)
	cmd := command(2, 9, &agentv1.PromoteReplica{Settings: &agentv1.DatabaseSettings{WaitFor: []string{"north-2"}}})
	cmd.Id = "promote"
	if r := (worker{g}).do(t.Context(), cmd); r.GetOutcome() != agentv1.Outcome_OUTCOME_DONE {
		t.Fatal(r)
	}
	for _, m := range d.saved {
		if m.Held == 2 && len(m.WaitsFor) != 1 {
			t.Errorf("epoch 2 is held and nobody waited for: %+v", m)
		}
	}
}
