package view

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Freshness says how far one cluster's part of an answer can be trusted.
type Freshness struct {
	Cluster string
	// Whole is false when nothing, or not everything, of the resource was shown
	// by the cluster yet.
	Whole bool
	// Age is how long ago the part was surely true; 0 while the cluster is
	// connected and watching.
	Age time.Duration
	// Reason says in words why the part is not whole or not fresh; else empty.
	Reason string
}

// cluster is what the view knows of a cluster's session.
type cluster struct {
	// replica streams; empty while none does.
	replica string
	// lost is when the last stream ended.
	lost time.Time
	// version is of its API server, once it is known.
	version string
	// served is known from the first facts on.
	served map[schema.GroupVersionResource]bool
	parts  map[schema.GroupVersionResource]*part
}

// part is the freshness of one resource of one cluster.
type part struct {
	// whole is true once a snapshot ended.
	whole bool
	// current is true from the end of a snapshot until the stream ends.
	current bool
	// begun is true from the begin of the stream's snapshot on.
	begun bool
	// asOf is when the part was surely true, if it is not now.
	asOf time.Time
	// unheard is true while the agent itself cannot hear its API server.
	unheard bool
}

func newCluster() *cluster {
	return &cluster{parts: map[schema.GroupVersionResource]*part{}}
}

func (c *cluster) part(gvr schema.GroupVersionResource) *part {
	p, ok := c.parts[gvr]
	if !ok {
		p = &part{}
		c.parts[gvr] = p
	}
	return p
}

// note takes what a delta says about freshness.
func (p *part) note(end bool, age time.Duration, now time.Time) {
	if end {
		p.whole, p.current = true, true
	}
	if !p.current {
		return
	}
	p.unheard = age > 0
	p.asOf = now.Add(-age)
}

// disconnect makes every part as old as the moment, or older if it was.
func (c *cluster) disconnect(now time.Time) {
	c.replica, c.lost = "", now
	for _, p := range c.parts {
		if p.current && !p.unheard {
			p.asOf = now
		}
		p.current, p.unheard, p.begun = false, false, false
	}
}

func (c *cluster) freshness(name string, gvr schema.GroupVersionResource, now time.Time) Freshness {
	f := Freshness{Cluster: name}
	p := c.parts[gvr]
	if p != nil {
		f.Whole = p.whole
	}
	switch {
	case p != nil && p.current && !p.unheard:
		return f
	case p != nil && p.whole:
		f.Age = max(now.Sub(p.asOf), time.Millisecond)
		f.Reason = fmt.Sprintf("what is shown of it is %s old", short(f.Age))
		switch {
		case p.unheard:
			f.Reason = "its agent cannot hear its API server: " + f.Reason
		case c.replica == "":
			f.Reason = "it is disconnected: " + f.Reason
		default:
			f.Reason = "it is being read again: " + f.Reason
		}
	case c.replica == "":
		f.Reason = fmt.Sprintf("it has been disconnected for %s: nothing of it is shown", short(now.Sub(c.lost)))
	case c.served != nil && !c.served[gvr]:
		f.Whole = true // the cluster has no such resource
	default:
		f.Reason = "it is being read for the first time: not everything of it is shown"
	}
	return f
}

func short(d time.Duration) string {
	if d < time.Second {
		return d.Round(time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// Freshness of a resource, for every cluster that the view has heard of or that
// is expected, in order of name.
func (v *View) Freshness(gvr schema.GroupVersionResource) []Freshness {
	expected := v.config.Expected()
	now := v.config.Clock.Now()
	v.mu.Lock()
	defer v.mu.Unlock()
	found := map[string]Freshness{}
	for name, c := range v.clusters {
		found[name] = c.freshness(name, gvr, now)
	}
	for _, name := range expected {
		if _, ok := found[name]; !ok {
			found[name] = Freshness{Cluster: name, Reason: "this hub member has never heard it: nothing of it is shown"}
		}
	}
	sorted := make([]Freshness, 0, len(found))
	for _, name := range slices.Sorted(maps.Keys(found)) {
		sorted = append(sorted, found[name])
	}
	return sorted
}
