package session

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/yamux"

	"tripod.dev/tripod/proto/agent/delta"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// agentSession is one live stream of one replica.
type agentSession struct {
	id      Identity
	cluster string
	replica string
	out     *outbox
	cancel  context.CancelCauseFunc
	done    <-chan struct{}
	// beats holds the newest heartbeat that was not yet passed on.
	beats chan *agentv1.Heartbeat
	// listener belongs to who receives from the stream.
	listener delta.Listener

	// Guarded by registry.mu.
	active bool
	// retired is closed when the replica is no longer the active one.
	retired   chan struct{}
	streaming bool // the view
	heard     time.Time
	since     time.Time
}

// Presence is what this member knows of one replica that is connected to it.
type Presence struct {
	Cluster string
	Replica string
	Active  bool
	// Heard is when the last heartbeat came; its monotonic reading counts.
	Heard  time.Time
	Tunnel bool
}

// registry holds the live sessions and tunnels of this member. The view sink is
// called without the lock.
type registry struct {
	view    ViewSink
	metrics *metrics

	mu       sync.Mutex
	sessions map[string]map[string]*agentSession  // cluster, replica
	tunnels  map[string]map[string]*yamux.Session // cluster, replica
	facts    map[string]*agentv1.ClusterFacts
}

func newRegistry(view ViewSink, m *metrics) *registry {
	return &registry{
		view: view, metrics: m,
		sessions: map[string]map[string]*agentSession{},
		tunnels:  map[string]map[string]*yamux.Session{},
		facts:    map[string]*agentv1.ClusterFacts{},
	}
}

// add registers a session and returns the one of the same replica that it
// replaces, if any.
func (r *registry) add(s *agentSession, now time.Time) *agentSession {
	r.mu.Lock()
	replicas := r.sessions[s.cluster]
	if replicas == nil {
		replicas = map[string]*agentSession{}
		r.sessions[s.cluster] = replicas
	}
	old := replicas[s.replica]
	s.since, s.heard = now, now
	replicas[s.replica] = s
	stopped := ""
	if old != nil && old.streaming {
		old.streaming = false
		stopped = old.replica
	}
	r.metrics.sessions.WithLabelValues(s.cluster).Set(float64(len(replicas)))
	r.mu.Unlock()
	r.disconnected(s.cluster, stopped)
	r.chooseView(s.cluster)
	return old
}

func (r *registry) remove(s *agentSession) {
	r.mu.Lock()
	replicas := r.sessions[s.cluster]
	if replicas[s.replica] == s {
		delete(replicas, s.replica)
		if len(replicas) == 0 {
			delete(r.sessions, s.cluster)
		}
		r.metrics.sessions.WithLabelValues(s.cluster).Set(float64(len(replicas)))
	}
	stopped := ""
	if s.streaming {
		s.streaming = false
		stopped = s.replica
	}
	r.mu.Unlock()
	r.disconnected(s.cluster, stopped)
	r.chooseView(s.cluster)
}

func (r *registry) disconnected(cluster, replica string) {
	if replica != "" {
		r.view.Disconnected(cluster, replica)
	}
}

// heard notes a heartbeat of s.
func (r *registry) heard(s *agentSession, active bool, now time.Time) {
	r.mu.Lock()
	changed := s.active != active
	s.active, s.heard = active, now
	switch {
	case changed && active:
		s.retired = make(chan struct{})
	case changed:
		close(s.retired)
	}
	r.mu.Unlock()
	if changed {
		r.chooseView(s.cluster)
	}
}

// chooseView keeps exactly one replica of a cluster streaming the view to this
// member: the active one, or any while none is.
func (r *registry) chooseView(cluster string) {
	r.mu.Lock()
	best := first(r.sessions[cluster])
	stopped := ""
	for _, s := range r.sessions[cluster] {
		if s.streaming && s != best {
			s.streaming = false
			s.out.putSubscription(false)
			stopped = s.replica
		}
	}
	if best != nil && !best.streaming {
		best.streaming = true
		best.out.putSubscription(true) // under the lock, so that starts and stops keep their order
	}
	r.mu.Unlock()
	r.disconnected(cluster, stopped)
}

// first prefers the active replica, then the one that streams, then the oldest.
func first(replicas map[string]*agentSession) *agentSession {
	var best *agentSession
	rank := func(s *agentSession) int {
		switch {
		case s.active:
			return 0
		case s.streaming:
			return 1
		}
		return 2
	}
	for _, s := range replicas {
		if best == nil || cmp.Or(cmp.Compare(rank(s), rank(best)), s.since.Compare(best.since), cmp.Compare(s.replica, best.replica)) < 0 {
			best = s
		}
	}
	return best
}

// streams tells whether s is the one whose view counts.
func (r *registry) streams(s *agentSession) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return s.streaming
}

// active is the session of the active replica, nil when this member hears none, and
// what is closed when it is no longer the active one.
func (r *registry) active(cluster string) (*agentSession, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := first(r.sessions[cluster]); s != nil && s.active {
		return s, s.retired
	}
	return nil, nil
}

func (r *registry) setFacts(cluster string, facts *agentv1.ClusterFacts) {
	r.mu.Lock()
	r.facts[cluster] = facts
	r.mu.Unlock()
}

func (r *registry) addTunnel(cluster, replica string, t *yamux.Session) (old *yamux.Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tunnels[cluster] == nil {
		r.tunnels[cluster] = map[string]*yamux.Session{}
	}
	old = r.tunnels[cluster][replica]
	r.tunnels[cluster][replica] = t
	r.metrics.tunnels.WithLabelValues(cluster).Set(float64(len(r.tunnels[cluster])))
	return old
}

func (r *registry) removeTunnel(cluster, replica string, t *yamux.Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tunnels[cluster][replica] == t {
		delete(r.tunnels[cluster], replica)
		r.metrics.tunnels.WithLabelValues(cluster).Set(float64(len(r.tunnels[cluster])))
		if len(r.tunnels[cluster]) == 0 {
			delete(r.tunnels, cluster)
		}
	}
}

// tunnelsOf lists a cluster's tunnels, that of the active replica first.
func (r *registry) tunnelsOf(cluster string) []*yamux.Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := make([]string, 0, len(r.tunnels[cluster]))
	for name := range r.tunnels[cluster] {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(r.rankLocked(cluster, a), r.rankLocked(cluster, b)), cmp.Compare(a, b))
	})
	tunnels := make([]*yamux.Session, len(names))
	for i, name := range names {
		tunnels[i] = r.tunnels[cluster][name]
	}
	return tunnels
}

func (r *registry) rankLocked(cluster, replica string) int {
	if s := r.sessions[cluster][replica]; s != nil && s.active {
		return 0
	}
	return 1
}

func (r *registry) presence() []Presence {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []Presence
	for cluster, replicas := range r.sessions {
		for name, s := range replicas {
			all = append(all, Presence{Cluster: cluster, Replica: name, Active: s.active, Heard: s.heard, Tunnel: r.tunnels[cluster][name] != nil})
		}
	}
	slices.SortFunc(all, func(a, b Presence) int {
		return cmp.Or(cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Replica, b.Replica))
	})
	return all
}

// Presence lists the replicas that are connected to this member, in order.
func (s *Server) Presence() []Presence { return s.registry.presence() }

// Facts are the last ones a cluster reported to this member, nil if none; they
// must not be changed.
func (s *Server) Facts(cluster string) *agentv1.ClusterFacts {
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	return s.registry.facts[cluster]
}

// Resubscribe asks the replica that streams the view of cluster for snapshots
// again, for a sink that has lost its state.
func (s *Server) Resubscribe(cluster string) {
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	for _, session := range s.registry.sessions[cluster] {
		if session.streaming {
			session.out.putSubscription(true)
		}
	}
}
