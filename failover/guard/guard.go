package guard

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// watchInterval is how often the deadline is looked at. It is far below the
// margin, and does not depend on a timer that a suspended machine holds back.
const watchInterval = 25 * time.Millisecond

// stopTimeout bounds the orderly stop when the container is told to end.
const stopTimeout = 20 * time.Second

// Parts are what a guard acts through.
type Parts struct {
	Engine    Engine
	Copier    Copier
	Processes Processes
	Store     Store
	Probe     Probe
}

// Guard runs one database. Its methods other than Run are called by the
// sessions with agents and may be concurrent.
type Guard struct {
	cfg   Config
	parts Parts
	work  chan job

	// saving orders writes of the memory; it is never held with mu.
	saving sync.Mutex

	mu        sync.Mutex
	core      *Core
	busy      string
	interrupt context.CancelFunc
	lastStop  string
	position  string
	timeline  int64
	enforcing bool
	results   map[string]*agentv1.GuardResult
	order     []string
	heard     Instant // when an agent last answered
	run       uint64  // numbers the starts of the database
	changed   chan struct{}
	ended     chan struct{}
}

// New loads the volume's memory. No database runs before Run.
func New(cfg Config, parts Parts) (*Guard, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	var memory Memory
	if err := parts.Store.Load(&memory); err != nil {
		return nil, err
	}
	return &Guard{
		cfg: cfg, parts: parts, work: make(chan job, 16),
		core: NewCore(memory, cfg.Margin), results: map[string]*agentv1.GuardResult{},
		lastStop: "the guard has just started", changed: make(chan struct{}), ended: make(chan struct{}, 1),
	}, nil
}

// Run guards until ctx ends; then it stops the database in order, still bound
// by the deadline, and returns when it has ended.
func (g *Guard) Run(ctx context.Context) error {
	watching, stopWatching := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWatching()
	var group errgroup.Group
	group.Go(func() error { g.watch(watching); return nil })
	group.Go(func() error {
		defer stopWatching()
		worker{g}.run(ctx)
		stopping, cancel := context.WithTimeout(watching, stopTimeout)
		defer cancel()
		if g.mode() != agentv1.DatabaseMode_DATABASE_MODE_STOPPED {
			if err := g.parts.Engine.Stop(stopping); err != nil {
				g.cfg.Log.Warn("database did not stop in order", "dataset", g.cfg.Identity.Key(), "error", err)
			}
		}
		return nil
	})
	group.Go(func() error { return caller{g}.attach(ctx) })
	return group.Wait()
}

// watch is the enforcement: nothing else has to work for it to kill.
func (g *Guard) watch(ctx context.Context) {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	g.set(func() { g.enforcing = true })
	defer g.set(func() { g.enforcing = false })
	for {
		select {
		case <-tick.C:
			g.enforce()
		case <-ctx.Done():
			return
		}
	}
}

func (g *Guard) enforce() {
	g.mu.Lock()
	kill, reason := g.core.Check(g.cfg.Clock())
	replica := g.core.Mode() == agentv1.DatabaseMode_DATABASE_MODE_REPLICA
	g.mu.Unlock()
	if replica {
		// A replica that someone promoted behind the guard's back is a writer.
		if writable, err := g.parts.Engine.Writable(); err == nil && writable && g.mode() == agentv1.DatabaseMode_DATABASE_MODE_REPLICA {
			kill, reason = true, "it became writable without the primary role"
		}
	}
	if kill {
		g.kill(reason)
	}
}

// kill ends every process of the container but this one.
func (g *Guard) kill(reason string) (left []int) {
	g.set(func() { g.lastStop = reason })
	began := g.cfg.Clock()
	left = g.parts.Processes.KillAll()
	g.cfg.Log.Warn("database killed", "dataset", g.cfg.Identity.Key(), "reason", reason,
		"left", len(left), "elapsed", time.Duration(g.cfg.Clock()-began))
	return left
}

// exits returns what the engine tells the end of this start of the database. A
// late word about an earlier start changes nothing.
func (g *Guard) exits() func(error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	run := g.run
	return func(err error) {
		g.mu.Lock()
		if g.run == run {
			g.endedLocked(err)
		}
		g.mu.Unlock()
		g.notify()
		select {
		case g.ended <- struct{}{}:
		default:
		}
	}
}

func (g *Guard) endedLocked(err error) {
	if err != nil && g.lastStop == "" {
		g.lastStop = "the database ended: " + err.Error()
	}
	g.run++
	g.core.SetMode(agentv1.DatabaseMode_DATABASE_MODE_STOPPED)
}

// stopped is for the worker alone, which knows that it is starting nothing.
func (g worker) stopped(err error) {
	g.set(func() { g.endedLocked(err) })
	g.notify()
}

// learn takes in a proof and enforces what it says at once.
func (g *Guard) learn(asked Instant, proof *agentv1.Proof, hub bool) error {
	g.mu.Lock()
	changed, err := g.core.Learn(asked, proof)
	// An agent that knows of no role is no answer to a primary.
	if !hub && (proof.GetRole() != nil || g.core.Mode() != agentv1.DatabaseMode_DATABASE_MODE_PRIMARY) {
		g.heard = g.cfg.Clock()
	}
	g.mu.Unlock()
	if changed {
		g.enforce()
		err = errors.Join(err, g.save())
	}
	return err
}

// save makes the present memory durable.
func (g *Guard) save() error {
	g.saving.Lock()
	defer g.saving.Unlock()
	g.mu.Lock()
	memory := g.core.Memory()
	g.mu.Unlock()
	return g.parts.Store.Save(memory)
}

func (g *Guard) set(change func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change()
}

// holds is the last epoch at which this copy was the primary, the standbys that it
// surely waits for as that, and whether it runs.
func (g *Guard) holds() (epoch int64, waitsFor []string, running bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.core.Memory()
	return m.Held, m.WaitsFor, g.core.Mode() == primary
}

func (g *Guard) mode() agentv1.DatabaseMode {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.core.Mode()
}

// notify asks the sessions to send the status now.
func (g *Guard) notify() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.changed)
	g.changed = make(chan struct{})
}

// changes returns a channel that is closed at the next change.
func (g *Guard) changes() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed
}

// Status is what the guard tells an agent.
func (g *Guard) Status() *agentv1.GuardStatus {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.core.Memory()
	return &agentv1.GuardStatus{
		Mode: g.core.Mode(), Formed: m.Formed, Torn: m.Torn,
		Incarnation: m.Incarnation, Epoch: m.Epoch, HeldEpoch: m.Held, Fenced: m.Fenced,
		WaitsFor: m.WaitsFor, Follows: m.Follows, Busy: g.busy,
		Init: os.Getpid() == 1, Enforcing: g.enforcing, LastStop: g.lastStop,
		Known: &agentv1.KnownSyncSet{Epoch: m.Known.Epoch, Primary: m.Known.Primary,
			SyncSet: m.Known.SyncSet, Protection: m.Known.Protection},
		Position: g.position, Timeline: g.timeline, Standby: m.Standby, Closed: m.Closed != 0, Origins: m.Origins,
	}
}

func (g worker) proveStopped(ctx context.Context) error {
	if left := g.kill("fenced"); len(left) > 0 {
		return fmt.Errorf("%d processes survived SIGKILL, power the machine off: %v", len(left), left)
	}
	g.stopped(nil)
	if g.parts.Probe(ctx) {
		return errors.New("something still listens on the database's port; it is not this guard's child")
	}
	return nil
}
