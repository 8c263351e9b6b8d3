package effector

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"tripod.dev/tripod/failover/driver"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// site is one dataset's copy in this cluster.
type site struct {
	key key

	// turn is held by whoever changes the copy: a directive or reconcile.
	turn chan struct{}

	observing, reconciling atomic.Bool // see once

	mu          sync.Mutex
	latest      *agentv1.DatasetObservation // not changed while it says the same
	at          time.Time
	told        *agentv1.DatasetObservation // latest with its pledgers
	epoch       int64                       // highest seen
	incarnation uint64
	revision    int64              // highest carried out at epoch
	interrupt   context.CancelFunc // ends the work of whoever has the turn
	retry       time.Time          // reconcile rests until then
	pause       time.Duration
	followed    int64     // the epoch at which it was last seen to have the primary's history
	certified   time.Time // the guard's certificate was good then
	behind      string    // why the guard does not follow the hub's CAs yet
	elsewhere   string    // where nobody accepted while the copy was said to run; see probe.go
}

func (e *Effector) site(k key) *site {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.sites[k] == nil {
		e.sites[k] = &site{key: k, turn: make(chan struct{}, 1)}
	}
	return e.sites[k]
}

// once runs f unless it is still running from an earlier tick.
func once(running *atomic.Bool, work *sync.WaitGroup, f func()) {
	if !running.CompareAndSwap(false, true) {
		return
	}
	work.Go(func() {
		defer running.Store(false)
		f()
	})
}

// take waits for the turn while waiting lasts. It returns a context for the
// work, which whoever is more urgent may end, and gives the turn back with done.
func (s *site) take(waiting, work context.Context) (ctx context.Context, done func(), err error) {
	select {
	case s.turn <- struct{}{}:
	case <-waiting.Done():
		return nil, nil, fmt.Errorf("dataset %s: wait for the work under way: %w", s.key, waiting.Err())
	}
	ctx, cancel := context.WithCancel(work)
	s.mu.Lock()
	s.interrupt = cancel
	s.mu.Unlock()
	return ctx, func() {
		s.mu.Lock()
		s.interrupt = nil
		s.mu.Unlock()
		cancel()
		<-s.turn
	}, nil
}

// preempt ends the work under way.
func (s *site) preempt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.interrupt != nil {
		s.interrupt()
	}
}

// admit refuses what is older than this process has seen and remembers the
// rest. The guard does the same from the volume, which outlives this process.
func (s *site) admit(incarnation uint64, epoch, revision int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if incarnation < s.incarnation || epoch < s.epoch {
		return fmt.Errorf("dataset %s: incarnation %d epoch %d, seen %d and %d: %w",
			s.key, incarnation, epoch, s.incarnation, s.epoch, driver.ErrOlder)
	}
	if epoch > s.epoch || incarnation > s.incarnation {
		s.revision = 0
		s.retry, s.pause = time.Time{}, 0
	}
	s.incarnation, s.epoch = incarnation, epoch
	if revision != 0 && revision < s.revision {
		return fmt.Errorf("dataset %s: decided at revision %d, one of revision %d was carried out: %w",
			s.key, revision, s.revision, driver.ErrOlder)
	}
	s.revision = max(s.revision, revision)
	return nil
}

// follows reports whether a resynchronisation has found, in this process and at
// epoch, that the copy has the primary's history.
func (s *site) follows(epoch int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.followed == epoch
}

// resync has the driver make this copy a replica of the call's primary.
func (s *site) resync(ctx context.Context, d driver.Driver, c driver.Call, discard bool) (driver.Resynced, error) {
	r, err := d.Resync(ctx, c, discard)
	if err == nil {
		s.mu.Lock()
		s.followed = c.Epoch
		s.mu.Unlock()
	}
	return r, err
}

// resting reports whether reconcile waits after a failure; a new epoch ends it.
func (s *site) resting(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return now.Before(s.retry)
}

func (s *site) rest(now time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.retry, s.pause = time.Time{}, 0
		return
	}
	s.pause = min(max(2*s.pause, 500*time.Millisecond), 15*time.Second)
	s.retry = now.Add(s.pause)
}

// observation is the latest, of that time, with the pledgers of the copy; nil if there
// is none. It is the same message while it says the same, and must not be changed.
func (s *site) observation(pledgers, unpledged []string) (*agentv1.DatasetObservation, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.latest == nil {
		return nil, time.Time{}
	}
	if s.told == nil {
		s.told = s.latest
	}
	if !slices.Equal(s.told.Pledgers, pledgers) || !slices.Equal(s.told.Unpledged, unpledged) {
		s.told = proto.CloneOf(s.latest)
		s.told.Pledgers, s.told.Unpledged = pledgers, unpledged
	}
	return s.told, s.at
}

// observe keeps the latest observation for the heartbeats.
func (e *Effector) observe(ctx context.Context, s *site, role *agentv1.RoleGrant) {
	d, err := e.driver(role)
	if err != nil {
		e.keep(s, driver.Observation{Role: driver.RoleNone, State: driver.StateUnknown, Message: err.Error()})
		return
	}
	e.keep(s, d.Observe(ctx, e.dataset(role)))
}

func (e *Effector) keep(s *site, o driver.Observation) *agentv1.DatasetObservation {
	return s.keep(o, time.Now())
}

// keep takes an observation of that time, unless a later one is known.
func (s *site) keep(o driver.Observation, at time.Time) *agentv1.DatasetObservation {
	seen := observed(s.key, o)
	s.mu.Lock()
	defer s.mu.Unlock()
	if at.Before(s.at) {
		return seen
	}
	if s.at = at; !proto.Equal(s.latest, seen) {
		s.latest, s.told = seen, nil
	}
	return seen
}

func (e *Effector) driver(role *agentv1.RoleGrant) (driver.Driver, error) {
	if d := e.drivers[role.GetDriver()]; d != nil {
		id := d.Identity()
		zeroLoss := role.GetProtection() == agentv1.Protection_PROTECTION_ZERO_LOSS
		switch {
		case zeroLoss && id.Unfenced:
			return nil, fmt.Errorf("dataset %s: driver %s has no fence by time, so a primary that lost its role may tell clients that what nobody else holds is durable: set spec.protection to MaxAvailability or Asynchronous",
				keyOf(role.GetDataset()), id.Name)
		case zeroLoss && id.Version != "" && !id.ZeroLoss:
			return nil, fmt.Errorf("dataset %s: driver %s %s cannot hold a write until others have it: set spec.protection to Asynchronous",
				keyOf(role.GetDataset()), id.Name, id.Version)
		}
		return d, nil
	}
	var known []string
	for name := range e.drivers {
		known = append(known, name)
	}
	slices.Sort(known)
	return nil, fmt.Errorf("dataset %s: no driver %q in cluster %s, there is %s: correct spec.driver",
		keyOf(role.GetDataset()), role.GetDriver(), e.cfg.Cluster, strings.Join(known, ", "))
}

func (e *Effector) dataset(role *agentv1.RoleGrant) driver.Dataset {
	return driver.Dataset{Namespace: role.GetDataset().GetNamespace(), Name: role.GetDataset().GetName(),
		Cluster: e.cfg.Cluster, Parameters: role.GetParameters()}
}

func (e *Effector) call(role *agentv1.RoleGrant, incarnation uint64) driver.Call {
	c := driver.Call{Incarnation: incarnation, Epoch: role.GetEpoch(), Dataset: e.dataset(role),
		Primary: role.GetPrimary(), PrimaryAddress: role.GetPrimaryAddress(), SyncSet: role.GetSyncSet()}
	for _, p := range role.GetPeers() {
		if c.PrimaryAddress == "" && p.GetCluster() == c.Primary {
			c.PrimaryAddress = p.GetAddress()
		}
	}
	return c
}
