package memberagent

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// ElectionLease is the Lease that the active replica holds.
const ElectionLease = "tripod-agent"

// election makes at most one replica of a cluster's agent active, up to the
// skew of their clocks: effects are idempotent and carry epochs, so a moment of
// two does no harm.
type election struct {
	config Config
	local  kubernetes.Interface
	// became is called when this replica's part changes.
	became func(active bool)
	log    *slog.Logger
	active atomic.Bool
}

func (e *election) isActive() bool { return e.active.Load() }

// run stands for election until ctx ends; the Lease is then given back.
func (e *election) run(ctx context.Context) error {
	lock := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: e.config.Namespace, Name: ElectionLease},
		Client:     e.local.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: e.config.Replica},
	}
	for {
		elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: lock, LeaseDuration: e.config.LeaseDuration, RenewDeadline: e.config.RenewDeadline, RetryPeriod: e.config.RetryPeriod,
			ReleaseOnCancel: true, Name: ElectionLease,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(context.Context) { e.set(true) },
				OnStoppedLeading: func() { e.set(false) },
			},
		})
		if err != nil {
			return fmt.Errorf("prepare the election of the active replica: %w", err)
		}
		elector.Run(ctx)
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

func (e *election) set(active bool) {
	if e.active.Swap(active) != active {
		e.log.Info("this replica's part changed", "active", active)
		e.became(active)
	}
}
