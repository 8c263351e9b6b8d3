package controller

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// writesAtOnce bounds the parallel writes of one turn: as many as keep the processors
// busy while some wait for the log, and no more, because the goroutines of Raft queue
// behind all that can run, and a leader whose heartbeats queue for a quarter of a second
// is none any more.
var writesAtOnce = min(max(8*runtime.GOMAXPROCS(0), 16), 32)

// commit writes what a turn wants, all objects in parallel: see the package
// comment of failover for why their order does not matter. Of the accounts it writes
// those that were chosen. It is true when something was committed, or was found changed
// and has been read again.
func (c *Controller) commit(ctx context.Context, e failover.Effects, accounts []client.Object) bool {
	var changed atomic.Bool
	var g errgroup.Group
	g.SetLimit(writesAtOnce)
	write := func(obj client.Object, f func(context.Context) error, created bool) {
		g.Go(func() error {
			if c.write(ctx, obj, f, created) {
				changed.Store(true)
			}
			return nil
		})
	}
	for _, n := range e.Notes {
		c.recorder.note(n)
	}
	for _, d := range e.Datasets {
		if !e.Reported[client.ObjectKeyFromObject(d)] {
			write(d, c.status(d), false)
		}
	}
	for _, s := range e.Services {
		write(s, c.status(s), false)
	}
	c.recorder.seal(ctx, e.Runs, func(run string, err error) { c.log.Warn("evidence not sealed", "run", run, "error", err) })
	finished := map[string]bool{}
	for _, r := range e.Runs {
		c.announce(ctx, r)
		finished[r.Name] = failover.Finished(r.Status.Phase)
	}
	// Who sees a finished run finds all of its evidence.
	c.flush(ctx, func(run string) bool { return finished[run] })
	for _, r := range e.Runs {
		write(r, c.status(r), false)
	}
	for _, r := range e.Create {
		write(r, func(ctx context.Context) error { return c.client.Create(ctx, r) }, true)
	}
	for _, a := range accounts {
		write(a, c.status(a), false)
	}
	g.Go(func() error {
		c.flush(ctx, func(string) bool { return true })
		return nil
	})
	_ = g.Wait() // the functions return nil: every failure is dealt with where it happens
	return changed.Load()
}

func (c *Controller) flush(ctx context.Context, wanted func(run string) bool) {
	if err := c.recorder.flush(ctx, c.cfg.WriteTimeout, wanted); err != nil && ctx.Err() == nil {
		c.log.Warn("evidence not written yet", "error", err)
	}
}

func (c *Controller) status(obj client.Object) func(context.Context) error {
	return func(ctx context.Context) error { return c.client.Status().Update(ctx, obj) }
}

// write carries one write out and remembers what it made.
func (c *Controller) write(ctx context.Context, obj client.Object, f func(context.Context) error, created bool) bool {
	bounded, cancel := context.WithTimeout(ctx, c.cfg.WriteTimeout)
	defer cancel()
	err := f(bounded)
	switch {
	case err == nil:
		c.objects.remember(obj, created)
		if r, ok := obj.(*v1alpha1.RecoveryRun); ok {
			c.log.Info("run journalled", "run", r.Name, "phase", string(r.Status.Phase), "reason", r.Status.Reason)
		}
		return true
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		if err := c.objects.refresh(bounded, obj); err != nil {
			c.log.Warn("object changed but could not be read again", "object", client.ObjectKeyFromObject(obj).String(), "error", err)
			return false
		}
		return true
	case apierrors.IsNotFound(err), errors.Is(ctx.Err(), context.Canceled):
		return false
	}
	c.metrics.failedWrites.Inc()
	c.log.Warn("write failed", "object", client.ObjectKeyFromObject(obj).String(), "error", err)
	return false
}
