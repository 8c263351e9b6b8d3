package memberagent

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"tripod.dev/tripod/failover/guard"
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
	// renewed is when the last renewal that was confirmed was asked for, on the clock
	// that goes on while the machine is suspended.
	renewed atomic.Int64
	setting sync.Mutex // keeps the order of what became is told
}

func (e *election) isActive() bool { return e.active.Load() }

// tenure is true while no other replica can be active: one waits for LeaseDuration
// from when it saw the renewal, which is later than when this one asked for it.
// isActive may be wrong for a moment after the process was stopped; this is not.
func (e *election) tenure() bool {
	return e.isActive() && time.Duration(guard.BootClock())-time.Duration(e.renewed.Load()) < e.config.RenewDeadline
}

// never is before every renewal.
const never = math.MinInt64 / 2

// timedLock notes when renewals were asked for.
type timedLock struct {
	resourcelock.Interface
	renewed *atomic.Int64
}

func (l timedLock) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return l.note(record, func() error { return l.Interface.Create(ctx, record) })
}

func (l timedLock) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return l.note(record, func() error { return l.Interface.Update(ctx, record) })
}

func (l timedLock) note(record resourcelock.LeaderElectionRecord, write func() error) error {
	if record.HolderIdentity != l.Identity() { // it is given back: from here on another one may be active
		l.renewed.Store(never)
		return write()
	}
	asked := guard.BootClock()
	err := write()
	if err == nil {
		l.renewed.Store(int64(asked))
	}
	return err
}

// run stands for election until ctx ends; the Lease is then given back, and before
// that its tenure has ended.
func (e *election) run(ctx context.Context) error {
	lock := timedLock{&resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: e.config.Namespace, Name: ElectionLease},
		Client:     e.local.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: e.config.Replica},
	}, &e.renewed}
	for {
		elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: lock, LeaseDuration: e.config.LeaseDuration, RenewDeadline: e.config.RenewDeadline, RetryPeriod: e.config.RetryPeriod,
			ReleaseOnCancel: true, Name: ElectionLease,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(leading context.Context) { e.set(leading, true) },
				OnStoppedLeading: func() { e.set(ctx, false) },
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

// set takes this replica's part. The elector tells of a beginning on a goroutine of
// its own, which may come after the end.
func (e *election) set(leading context.Context, active bool) {
	e.setting.Lock()
	defer e.setting.Unlock()
	if active && leading.Err() != nil {
		return
	}
	if e.active.Swap(active) != active {
		e.log.Info("this replica's part changed", "active", active)
		e.became(active)
	}
}
