package view

import (
	"cmp"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/utils/clock"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
	"tripod.dev/tripod/syncer"
	syncview "tripod.dev/tripod/syncer/view"
)

// Config of a View. Zero values have the defaults said here.
type Config struct {
	// Expected names the clusters of the fleet, so that one that was never heard
	// is said to be missing and one that left is forgotten. An empty answer means
	// that they are not known. It must not block. Not known if nil.
	Expected func() []string
	// History is how many changes per resource a watch may lag behind; 4096.
	History int
	// Start is the first resourceVersion, of 19 digits; the time in nanoseconds.
	// Members that start at different times so have different versions: a client
	// that takes one to another member is told to list anew, not shown a gap.
	Start  uint64
	Clock  clock.PassiveClock
	Logger *slog.Logger
}

const (
	leastVersion = 1_000_000_000_000_000_000
	mostVersion  = 9_000_000_000_000_000_000
)

func (c Config) withDefaults() Config {
	if c.Expected == nil {
		c.Expected = func() []string { return nil }
	}
	if c.History == 0 {
		c.History = 4096
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	if c.Start == 0 {
		c.Start = uint64(c.Clock.Now().UnixNano())
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Validate reports what cannot work, after defaults were filled in.
func (c Config) Validate() error {
	if c.Start < leastVersion || c.Start > mostVersion {
		return errors.New("view: Start must have 19 digits: set the machine's clock, or give a Start between 10^18 and 9*10^18")
	}
	if c.History < 0 {
		return errors.New("view: History is a count: give a positive number, or 0 for the default")
	}
	return nil
}

// View is safe for concurrent use, but what it is told of one cluster must come
// one call after the other. Telling never blocks on a reader, reading never on
// a cluster.
type View struct {
	config   Config
	sequence atomic.Uint64

	// mu guards the maps and what clusters hold; it is not held together with
	// a collection's.
	mu          sync.Mutex
	clusters    map[string]*cluster
	collections map[schema.GroupVersionResource]*collection
	resources   map[schema.GroupVersionResource]syncer.Resource
}

// New makes an empty view.
func New(config Config) (*View, error) {
	config = config.withDefaults()
	if err := config.Validate(); err != nil {
		return nil, err
	}
	v := &View{
		config:      config,
		clusters:    map[string]*cluster{},
		collections: map[schema.GroupVersionResource]*collection{},
		resources:   map[schema.GroupVersionResource]syncer.Resource{},
	}
	v.sequence.Store(config.Start)
	return v, nil
}

// Apply takes a delta of the replica that streams for the cluster. A replica
// that starts to stream begins with snapshots; what it has not snapshotted yet
// stays visible as old. An object that cannot be decoded is left out and logged.
func (v *View) Apply(clusterName, replica string, delta *agentv1.ViewDelta) {
	if delta.GetResource() == nil {
		return
	}
	resource := syncview.DecodeResource(delta.GetResource())
	gvr := resource.GroupVersionResource
	if !v.accept(clusterName, replica, gvr, delta.GetSnapshotBegin()) {
		return
	}
	ch := change{begin: delta.GetSnapshotBegin(), end: delta.GetSnapshotEnd()}
	for _, upsert := range delta.GetUpserts() {
		o, err := parse(clusterName, resource, upsert.GetObject())
		if err != nil {
			v.config.Logger.Warn("object of a cluster left out of the view", "cluster", clusterName, "error", err)
			continue
		}
		ch.upserts = append(ch.upserts, o)
	}
	for _, key := range delta.GetDeletes() {
		ch.deletes = append(ch.deletes, syncer.Key{Namespace: key.GetNamespace(), Name: key.GetName()})
	}
	v.collection(resource).apply(clusterName, resource, ch)

	v.mu.Lock()
	defer v.mu.Unlock()
	age := time.Duration(delta.GetAgeMillis()) * time.Millisecond
	v.clusterLocked(clusterName).part(gvr).note(ch.end, age, v.config.Clock.Now())
}

// accept reports whether the delta counts: it comes from the streaming replica,
// or makes its replica the streaming one by beginning a snapshot.
func (v *View) accept(name, replica string, gvr schema.GroupVersionResource, begins bool) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	c := v.clusterLocked(name)
	if c.replica != replica {
		if !begins {
			return false
		}
		if c.replica != "" {
			c.disconnect(v.config.Clock.Now())
		}
		c.replica = replica
	}
	// Until its snapshot begins, a resource of a new stream takes no deltas.
	if begins {
		c.part(gvr).begun = true
		return true
	}
	p, known := c.parts[gvr]
	return known && p.begun
}

// Facts takes what a cluster serves. Resources that it no longer serves are
// removed.
func (v *View) Facts(clusterName string, facts *agentv1.ClusterFacts) {
	served := map[schema.GroupVersionResource]bool{}
	v.mu.Lock()
	for _, encoded := range facts.GetResources() {
		resource := syncview.DecodeResource(encoded)
		served[resource.GroupVersionResource] = true
		v.resources[resource.GroupVersionResource] = resource
	}
	c := v.clusterLocked(clusterName)
	c.served, c.version = served, facts.GetVersion()
	var gone []*collection
	for gvr := range c.parts {
		if held, ok := v.collections[gvr]; ok && !served[gvr] {
			gone = append(gone, held)
			delete(c.parts, gvr)
		}
	}
	v.mu.Unlock()
	for _, held := range gone {
		held.drop(clusterName)
	}
}

// Disconnected says that the replica streams no more. What it showed stays,
// unless the cluster is known to have left the fleet: its session ends then.
func (v *View) Disconnected(clusterName, replica string) {
	expected := v.config.Expected()
	left := len(expected) > 0 && !slices.Contains(expected, clusterName)
	v.mu.Lock()
	c, ok := v.clusters[clusterName]
	ended := ok && c.replica == replica
	if ended {
		c.disconnect(v.config.Clock.Now())
	}
	v.mu.Unlock()
	if ended && left {
		v.forget(clusterName)
	}
}

// forget removes a cluster.
func (v *View) forget(clusterName string) {
	v.mu.Lock()
	delete(v.clusters, clusterName)
	held := make([]*collection, 0, len(v.collections))
	for _, c := range v.collections {
		held = append(held, c)
	}
	v.mu.Unlock()
	for _, c := range held {
		c.drop(clusterName)
	}
}

func (v *View) clusterLocked(name string) *cluster {
	c, ok := v.clusters[name]
	if !ok {
		c = newCluster()
		v.clusters[name] = c
	}
	return c
}

// collection of a resource, made if need be.
func (v *View) collection(resource syncer.Resource) *collection {
	v.mu.Lock()
	defer v.mu.Unlock()
	gvr := resource.GroupVersionResource
	c, ok := v.collections[gvr]
	if !ok {
		c = newCollection(resource, &v.sequence, v.config.History)
		v.collections[gvr] = c
	}
	if _, known := v.resources[gvr]; !known {
		v.resources[gvr] = resource
	}
	return c
}

// find returns the collection of a resource that at least one cluster serves.
func (v *View) find(gvr schema.GroupVersionResource) (*collection, bool) {
	v.mu.Lock()
	resource, ok := v.servedLocked()[gvr]
	v.mu.Unlock()
	if !ok {
		return nil, false
	}
	return v.collection(resource), true
}

// servedLocked are the resources that are in the view of at least one cluster,
// connected or not.
func (v *View) servedLocked() map[schema.GroupVersionResource]syncer.Resource {
	served := map[schema.GroupVersionResource]syncer.Resource{}
	for _, c := range v.clusters {
		for gvr := range c.served {
			served[gvr] = v.resources[gvr]
		}
		for gvr := range c.parts {
			served[gvr] = v.resources[gvr]
		}
	}
	return served
}

// Resources lists what the view serves, in order of group, version (the most
// stable first) and name.
func (v *View) Resources() []syncer.Resource {
	v.mu.Lock()
	defer v.mu.Unlock()
	var sorted []syncer.Resource
	for _, resource := range v.servedLocked() {
		sorted = append(sorted, resource)
	}
	slices.SortFunc(sorted, func(a, b syncer.Resource) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), version.CompareKubeAwareVersionStrings(b.Version, a.Version), cmp.Compare(a.Resource, b.Resource))
	})
	return sorted
}

// clusterNames are the clusters that the view has heard of.
func (v *View) clusterNames() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Sorted(maps.Keys(v.clusters))
}
