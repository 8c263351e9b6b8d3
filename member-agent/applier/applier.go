// Package applier makes a cluster's objects be as the hub wants them. It applies
// what is named, with server-side apply; it repairs what drifts; and it deletes
// an object for one reason only: a committed tombstone that names it.
package applier

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// Config of an Applier.
type Config struct {
	// RESTConfig reaches the cluster's own API server.
	RESTConfig *rest.Config
	// Send is given the full status whenever it changed. It must not block.
	Send func(*agentv1.AppliedStatus)
	// Seen is the highest the cluster has ever seen of any hub, as remembered
	// by the agent across restarts.
	Seen Seen
	// Resync is how often every object is compared again. 30 s by default.
	Resync time.Duration
	// Settle is how long changes of status are gathered before they are sent.
	// 100 ms by default.
	Settle time.Duration
	Log    *slog.Logger

	// cluster replaces RESTConfig in tests.
	cluster cluster
}

func (c Config) withDefaults() Config {
	if c.Resync == 0 {
		c.Resync = 30 * time.Second
	}
	if c.Settle == 0 {
		c.Settle = 100 * time.Millisecond
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Send == nil {
		c.Send = func(*agentv1.AppliedStatus) {}
	}
	return c
}

// Validate says what is missing.
func (c Config) Validate() error {
	if c.RESTConfig == nil && c.cluster == nil {
		return errors.New("applier: RESTConfig is missing: give the cluster's own rest.Config")
	}
	return nil
}

// cluster is the member's API as the applier needs it.
type cluster interface {
	// get returns a NotFound error if there is no such object, and errNoKind if
	// the API server does not serve the kind.
	get(ctx context.Context, key *agentv1.ObjectKey) (*unstructured.Unstructured, error)
	// apply is a forced server-side apply as v1alpha1.FieldManager. It makes the
	// namespace if that is missing.
	apply(ctx context.Context, obj *unstructured.Unstructured) (*unstructured.Unstructured, error)
	// remove deletes exactly the object that was read (its uid and version).
	remove(ctx context.Context, obj *unstructured.Unstructured) error
	// watch calls changed for each event on objects of the key's kind that carry
	// our label. Calling it again for the same kind does nothing.
	watch(key *agentv1.ObjectKey, changed func(identity))
	// run serves the watches until ctx ends.
	run(ctx context.Context)
}

// Applier applies the merged wishes of all hub members to one cluster. All
// methods may be called concurrently.
type Applier struct {
	config  Config
	cluster cluster
	queue   workqueue.TypedRateLimitingInterface[identity]
	dirty   chan struct{}

	mu      sync.Mutex
	ledger  *ledger
	results map[identity]*agentv1.AppliedObject
	buried  map[identity]string
	active  bool
	// unseen are the objects not looked at since this replica became active.
	unseen map[identity]bool
	// whole is true once a complete state has come; first is when any has.
	whole bool
	first time.Time
}

// New returns an Applier that is not active.
func New(config Config) (*Applier, error) {
	config = config.withDefaults()
	if err := config.Validate(); err != nil {
		return nil, err
	}
	a := &Applier{
		config: config, cluster: config.cluster, dirty: make(chan struct{}, 1),
		ledger: newLedger(config.Seen), results: map[identity]*agentv1.AppliedObject{}, buried: map[identity]string{},
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[identity](200*time.Millisecond, 30*time.Second)),
	}
	if a.cluster == nil {
		real, err := newKube(config.RESTConfig)
		if err != nil {
			return nil, err
		}
		a.cluster = real
	}
	return a, nil
}

// Desired takes in a state from any hub member. It is remembered also while this
// replica is not active, so that it can act at once when it becomes so.
func (a *Applier) Desired(state *agentv1.DesiredState) {
	a.mu.Lock()
	changed, released, accepted := a.ledger.merge(state)
	for _, id := range released {
		delete(a.results, id)
		delete(a.buried, id)
		delete(a.unseen, id)
	}
	if accepted {
		a.heardLocked(state.GetComplete())
	}
	for _, id := range changed {
		delete(a.buried, id)
	}
	active := a.active
	a.mu.Unlock()
	if !accepted {
		a.config.Log.Warn("refused the desired state of an older incarnation",
			"incarnation", state.GetIncarnation(), "revision", state.GetRevision())
		return
	}
	if len(released) > 0 {
		a.touch()
	}
	if active {
		for _, id := range inOrder(changed) {
			a.queue.Add(id)
		}
	}
}

// patience is how long a status waits for a complete state. One may never come:
// the hub may no longer serve a kind that it has placed.
const patience = 10 * time.Second

func (a *Applier) heardLocked(complete bool) {
	if a.first.IsZero() {
		a.first = time.Now()
	}
	if complete && !a.whole {
		a.whole = true
		if a.active {
			a.expectLocked()
		}
	}
}

// expectLocked notes what must be looked at before there is a status to tell.
func (a *Applier) expectLocked() {
	a.unseen = map[identity]bool{}
	for id := range a.ledger.orders {
		if a.results[id] == nil && a.buried[id] == "" {
			a.unseen[id] = true
		}
	}
}

// tellableLocked is false while a status would look as if what was not looked at
// yet were not there.
func (a *Applier) tellableLocked() bool {
	if !a.active || a.first.IsZero() {
		return false
	}
	return len(a.unseen) == 0 && (a.whole || time.Since(a.first) >= patience)
}

// SetActive says whether this replica carries out effects. Work under way when
// it is set to false is finished.
func (a *Applier) SetActive(active bool) {
	a.mu.Lock()
	became := active && !a.active
	a.active = active
	if became {
		a.results, a.buried = map[identity]*agentv1.AppliedObject{}, map[identity]string{}
		a.expectLocked()
	}
	a.mu.Unlock()
	if became {
		a.enqueueAll()
	}
}

// Seen is the highest incarnation and revision seen, for the agent to remember.
func (a *Applier) Seen() Seen {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ledger.seen
}

// Status is the full status now, for a hub session that has just begun. It is
// nil while there is nothing to tell: on a replica that is not active, or that has
// not looked at everything since it became so.
func (a *Applier) Status() *agentv1.AppliedStatus {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.tellableLocked() {
		return nil
	}
	status := &agentv1.AppliedStatus{}
	for _, r := range a.results {
		status.Objects = append(status.Objects, r)
	}
	for _, tombstone := range a.buried {
		status.Buried = append(status.Buried, tombstone)
	}
	sortStatus(status)
	return status
}

// Run works until ctx ends. It is called once.
func (a *Applier) Run(ctx context.Context) error {
	var running sync.WaitGroup
	running.Go(func() { a.cluster.run(ctx) })
	running.Go(func() { a.resync(ctx) })
	running.Go(func() { a.report(ctx) })
	for range 4 {
		running.Go(func() {
			for a.next(ctx) {
			}
		})
	}
	<-ctx.Done()
	a.queue.ShutDown()
	running.Wait()
	return nil
}

func (a *Applier) resync(ctx context.Context) {
	ticker := time.NewTicker(a.config.Resync)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			a.enqueueAll()
			a.touch()
		}
	}
}

func (a *Applier) enqueueAll() {
	a.mu.Lock()
	ids := make([]identity, 0, len(a.ledger.orders))
	for id := range a.ledger.orders {
		ids = append(ids, id)
	}
	a.mu.Unlock()
	for _, id := range inOrder(ids) {
		a.queue.Add(id)
	}
}

// changed is called by a watch: an object of ours changed in the cluster.
func (a *Applier) changed(id identity) {
	a.mu.Lock()
	_, wanted := a.ledger.orders[id]
	a.mu.Unlock()
	if wanted {
		a.queue.Add(id)
	}
}

// touch notes that the status may have changed.
func (a *Applier) touch() {
	select {
	case a.dirty <- struct{}{}:
	default:
	}
}

// report sends the status after changes, at most once per settling time.
func (a *Applier) report(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.dirty:
		}
		settled := time.NewTimer(a.config.Settle)
		select {
		case <-ctx.Done():
			settled.Stop()
			return
		case <-settled.C:
		}
		if status := a.Status(); status != nil {
			a.config.Send(status)
		}
	}
}
