// Package hook does what the hooks of a plan ask for: calls by HTTP, gRPC health
// questions, messages, conditions over the fleet, and Jobs in a cluster. It decides nothing: failover
// says when a hook is due and what its result means.
//
// An attempt may be made twice, by two leaders. Every kind carries the attempt's
// idempotency key, so that the other side can tell.
package hook

import (
	"context"
	"fmt"
	"time"

	"k8s.io/client-go/kubernetes"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// Config of a Runner.
type Config struct {
	// Headers returns the keys of a Secret of the hub, as the headers that a hook
	// sends; nil if hooks may name none.
	Headers func(ctx context.Context, secret string) (map[string]string, error)
	// View returns what a condition sees: lists of objects by plural name.
	View func(ctx context.Context) (map[string]any, error)
	// Cluster returns a client of a cluster's API server and what lets go of it; nil if
	// hooks may make no Jobs.
	Cluster func(cluster string) (kubernetes.Interface, func(), error)
	// Pace of a condition's evaluation, and of looks at a Job; 500 ms if 0.
	Pace time.Duration
}

// Runner does hooks. It may be used concurrently.
type Runner struct{ cfg Config }

// New makes a Runner.
func New(cfg Config) *Runner {
	if cfg.Pace == 0 {
		cfg.Pace = 500 * time.Millisecond
	}
	return &Runner{cfg: cfg}
}

// Do makes one attempt and returns when it has succeeded or failed, at the latest
// after the call's bound. The message of a failure names what was called and what
// was expected of it.
func (r *Runner) Do(ctx context.Context, c failover.HookCall) failover.Result {
	ctx, cancel := context.WithTimeout(ctx, c.Bound)
	defer cancel()
	var message string
	var err error
	switch h := c.Hook; {
	case h.HTTP != nil:
		message, err = r.http(ctx, c)
	case h.GRPC != nil:
		message, err = r.grpc(ctx, c)
	case h.Message != nil:
		message, err = r.message(ctx, c)
	case h.Wait != nil:
		message, err = r.wait(ctx, c)
	case h.Job != nil:
		message, err = r.job(ctx, c)
	default:
		err = fmt.Errorf("hook %s has no kind that this hub knows: http, grpc, message, wait or job", h.Name)
	}
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("not done within %v: %w", c.Bound, err)
		}
		return failover.Result{Outcome: failover.Failed, Message: err.Error()}
	}
	return failover.Result{Outcome: failover.Done, Message: message}
}

// Account is what the other side is told of the run.
type Account struct {
	Key         string                 `json:"idempotencyKey"`
	Run         string                 `json:"run"`
	Parent      string                 `json:"parent,omitempty"`
	Plan        string                 `json:"plan"`
	Hook        string                 `json:"hook"`
	At          v1alpha1.HookPoint     `json:"at"`
	Attempt     int32                  `json:"attempt"`
	Action      v1alpha1.Action        `json:"action"`
	Namespace   string                 `json:"namespace"`
	Application string                 `json:"application"`
	From        v1alpha1.Place         `json:"from"`
	Datasets    []v1alpha1.RunDataset  `json:"datasets,omitempty"`
	Requester   string                 `json:"requester,omitempty"`
	Loss        *v1alpha1.LossEstimate `json:"loss,omitempty"`
	Phase       v1alpha1.RunPhase      `json:"phase"`
}

func account(c failover.HookCall) Account {
	spec, status := c.Run.Spec, c.Run.Status
	return Account{Key: c.ID, Run: c.Run.Name, Parent: spec.Parent, Plan: spec.Plan, Hook: c.Hook.Name, At: c.Hook.At, Attempt: c.Attempt,
		Action: spec.Action, Namespace: c.Application.Namespace, Application: c.Application.Name, From: spec.From,
		Datasets: status.Datasets, Requester: spec.Requester, Loss: status.Loss, Phase: status.Phase}
}
