package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"tripod.dev/tripod/test/robustness/fault"
	"tripod.dev/tripod/test/robustness/model"
	"tripod.dev/tripod/test/robustness/traffic"
	"tripod.dev/tripod/test/robustness/validate"
	"tripod.dev/tripod/test/storefleet"
)

// plan is what one round does. It follows from its seed.
type plan struct {
	seed    uint64
	members int
	disks   bool
	tuning  storefleet.Tuning
	steps   []fault.Step
}

// newPlan draws a round of n faults of the kinds with these names, or of all; clocks
// says that wall clocks can be moved. How many members there are is drawn unless it is
// given.
func newPlan(seed uint64, members, n int, clocks bool, names ...string) plan {
	random := rand.New(rand.NewPCG(seed, 0))
	p := plan{seed: seed, members: 3}
	if random.IntN(4) == 0 {
		p.members = 5
	}
	if members > 0 {
		p.members = members
	}
	p.disks = random.IntN(3) == 0 && os.Geteuid() == 0
	// Small, so that every round sees snapshots and gaps in the log.
	p.tuning = storefleet.Tuning{
		SnapshotThreshold: 50 + random.Uint64N(200), TrailingLogs: 10 + random.Uint64N(60),
		SnapshotInterval: time.Duration(200+random.IntN(800)) * time.Millisecond,
		SegmentBytes:     64 << 10, SpaceReserve: 16 << 20,
	}
	p.steps = fault.Schedule(random, n, p.disks, clocks, names...)
	return p
}

// outcome is what came of a round.
type outcome struct {
	plan       plan
	took       time.Duration
	history    *model.History
	violations []validate.Violation
	acted      map[string]int
	// failure is why the round could not go on; the history up to it is checked.
	failure error
	// folder keeps the history and the members' data if anything is wrong.
	folder string
}

func (o outcome) bad() bool { return len(o.violations) > 0 || o.failure != nil }

// reason is in a word why the round is bad.
func (o outcome) reason() string {
	var rules []string
	for _, v := range o.violations {
		if !slices.Contains(rules, string(v.Rule)) {
			rules = append(rules, string(v.Rule))
		}
	}
	if o.failure != nil {
		first, _, _ := strings.Cut(o.failure.Error(), "\n")
		rules = append(rules, first)
	}
	return strings.Join(rules, "; ")
}

const (
	// settling bounds the end of a round: leases run out, watches catch up.
	settling = 40 * time.Second
	// searching bounds the search for an order of requests.
	searching = time.Minute
)

// play runs a round with members of program in a new folder under base.
func play(ctx context.Context, program, base string, p plan) (o outcome) {
	start := time.Now()
	o.plan, o.folder = p, filepath.Join(base, fmt.Sprintf("%016x", p.seed))
	s, err := open(ctx, program, o.folder, p)
	if err != nil {
		o.failure = err
		return o
	}
	o.history, o.failure = s.run(ctx, p)
	o.acted = s.fleet.Acted
	if o.history != nil {
		o.violations = validate.Check(o.history, searching)
	}
	o.took = time.Since(start)
	if o.bad() {
		o.failure = errors.Join(o.failure, keep(o))
	}
	if err := s.close(ctx, o.bad()); err != nil {
		o.failure = errors.Join(o.failure, err)
	}
	return o
}

// stage is where a round is played.
type stage struct {
	folder  string
	network *fault.Network
	fleet   *fault.Fleet
	disks   map[string]*fault.Disk
}

func open(ctx context.Context, program, folder string, p plan) (_ *stage, err error) {
	s := &stage{folder: folder, network: fault.NewNetwork(), disks: map[string]*fault.Disk{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close(ctx, true))
		}
	}()
	if p.disks {
		for i := range p.members {
			name := fmt.Sprintf("m%d", i)
			if s.disks[name], err = fault.MountDisk(ctx, filepath.Join(folder, name)); err != nil {
				delete(s.disks, name)
				return nil, err
			}
		}
	}
	routes := routing{network: s.network, folder: folder, tuning: p.tuning, routes: map[string]string{}}
	fleet, err := storefleet.Start(ctx, storefleet.Ours{Program: program, Configure: routes.configure}, p.members, folder)
	if err != nil {
		return nil, errors.Join(err, routes.err)
	}
	s.fleet = fault.New(fleet, s.network, s.disks)
	return s, nil
}

// routing puts the network between the members.
type routing struct {
	network *fault.Network
	folder  string
	tuning  storefleet.Tuning

	mu     sync.Mutex
	routes map[string]string
	err    error
}

func (r *routing) configure(c *storefleet.MemberConfig) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.Tuning = r.tuning
	c.Control = filepath.Join(r.folder, c.Name, "control")
	c.Routes = map[string]string{}
	for _, m := range c.Members {
		if m.Name == c.Name {
			continue
		}
		for _, address := range []string{m.RaftAddress, m.PeerAddress} {
			key := c.Name + " " + address
			if r.routes[key] == "" {
				route, err := r.network.Route(c.Name, m.Name, address)
				r.err = errors.Join(r.err, err)
				r.routes[key] = route
			}
			c.Routes[address] = r.routes[key]
		}
	}
}

// run lets faults happen while clients work, and returns what they saw.
func (s *stage) run(ctx context.Context, p plan) (*model.History, error) {
	clients, err := traffic.Start(ctx, s.fleet.Fleet, p.seed)
	if err != nil {
		return nil, err
	}
	var failure error
	for _, step := range p.steps {
		if failure = s.fleet.Do(ctx, step); failure != nil {
			break
		}
	}
	ctx, cancel := context.WithTimeout(ctx, settling)
	defer cancel()
	h, err := clients.Finish(ctx)
	return h, errors.Join(failure, err)
}

func (s *stage) close(ctx context.Context, kept bool) error {
	var failed []error
	if s.fleet != nil {
		failed = append(failed, s.fleet.Stop())
	}
	s.network.Close()
	for name, d := range s.disks {
		if kept {
			failed = append(failed, d.Keep(ctx, filepath.Join(s.folder, name+".kept")))
		}
		failed = append(failed, d.Unmount(context.WithoutCancel(ctx)))
	}
	if !kept {
		failed = append(failed, os.RemoveAll(s.folder))
	}
	return errors.Join(failed...)
}

// keep writes what a person needs to understand a bad round.
func keep(o outcome) error {
	if o.history == nil {
		return nil
	}
	text, err := json.Marshal(o.history)
	if err != nil {
		return fmt.Errorf("encode the history: %w", err)
	}
	if err := os.WriteFile(filepath.Join(o.folder, "history.json"), text, 0o600); err != nil {
		return fmt.Errorf("keep the history: %w", err)
	}
	var lines []byte
	for _, v := range o.violations {
		lines = append(lines, v.String()...)
		lines = append(lines, '\n')
	}
	if err := os.WriteFile(filepath.Join(o.folder, "violations"), lines, 0o600); err != nil {
		return fmt.Errorf("keep the violations: %w", err)
	}
	for _, v := range o.violations {
		if v.Rule == validate.Linearizable {
			return validate.Draw(o.history, filepath.Join(o.folder, "order.html"), searching)
		}
	}
	return nil
}
