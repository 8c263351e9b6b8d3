package controller

import (
	"sync"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// Reports holds the latest applied status of every cluster. Every hub member
// keeps one, so that a new leader can write what it has heard at once.
type Reports struct {
	mu     sync.Mutex
	latest map[string]*agentv1.AppliedStatus
	notify func(cluster string, placements map[string]bool)
}

// NewReports returns an empty Reports.
func NewReports() *Reports {
	return &Reports{latest: map[string]*agentv1.AppliedStatus{}}
}

// Applied takes a cluster's full status in. It does not block.
func (r *Reports) Applied(cluster string, status *agentv1.AppliedStatus) {
	r.mu.Lock()
	touched := map[string]bool{}
	for _, s := range []*agentv1.AppliedStatus{r.latest[cluster], status} {
		for _, o := range s.GetObjects() {
			touched[o.GetPlacement()] = true
		}
	}
	r.latest[cluster] = status
	notify := r.notify
	r.mu.Unlock()
	if notify != nil {
		notify(cluster, touched)
	}
}

// Latest is the latest status of a cluster, or nil. It must not be changed.
func (r *Reports) Latest(cluster string) *agentv1.AppliedStatus { return r.of(cluster) }

// of is the latest status of a cluster, or nil.
func (r *Reports) of(cluster string) *agentv1.AppliedStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.latest[cluster]
}

func (r *Reports) subscribe(notify func(cluster string, placements map[string]bool)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notify = notify
}
