package memberagent

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"k8s.io/client-go/rest"
)

const (
	probeEvery   = time.Second
	probeTimeout = 2 * time.Second
	// probeFailures in a row make the cluster unobservable.
	probeFailures = 2
)

// probe says whether the agent can see its own cluster's API server. A cluster
// that it cannot see is unobservable, never lost (safety.md section 8).
type probe struct {
	ask    func(ctx context.Context) error
	reason atomic.Pointer[string]
}

func newProbe(client rest.Interface) *probe {
	return &probe{ask: func(ctx context.Context) error {
		return client.Get().AbsPath("/readyz").Do(ctx).Error()
	}}
}

// unobservable is the reason, empty while the API server answers.
func (p *probe) unobservable() string {
	if reason := p.reason.Load(); reason != nil {
		return *reason
	}
	return ""
}

func (p *probe) run(ctx context.Context) error {
	failures := 0
	for {
		bounded, cancel := context.WithTimeout(ctx, probeTimeout)
		err := p.ask(bounded)
		cancel()
		if err == nil {
			failures = 0
			p.reason.Store(nil)
		} else if failures++; failures >= probeFailures {
			reason := fmt.Sprintf("the agent cannot reach its cluster's API server: %v", err)
			p.reason.Store(&reason)
		}
		if err := sleep(ctx, probeEvery); err != nil {
			return err
		}
	}
}
