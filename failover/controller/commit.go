package controller

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// commit writes what a turn wants, all objects in parallel: see the package
// comment of failover for why their order does not matter. Of the accounts it writes
// those that were chosen. It is true when something was committed, or was found changed
// and has been read again.
func (c *Controller) commit(ctx context.Context, e failover.Effects, accounts []client.Object) bool {
	var changed atomic.Bool
	var mu sync.Mutex
	var journalled []*v1alpha1.RecoveryRun
	var g errgroup.Group
	g.SetLimit(c.width.at)
	writes := 0
	write := func(obj client.Object, f func(context.Context) error, created bool) {
		writes++
		g.Go(func() error {
			begun := time.Now()
			defer func() { c.width.took(time.Since(begun)) }()
			if c.write(ctx, obj, f, created) {
				changed.Store(true)
			}
			return nil
		})
	}
	for _, d := range e.Datasets {
		if !e.Reported[client.ObjectKeyFromObject(d)] {
			write(d, c.status(d), false)
		}
	}
	for _, s := range e.Services {
		write(s, c.status(s), false)
	}
	noted := byRun(e.Notes)
	for _, r := range e.Runs {
		if err := c.recorder.seal(r, noted[r.Name]); err != nil {
			c.log.Warn("evidence not sealed", "run", r.Name, "error", err)
		}
		write(r, func(ctx context.Context) error {
			err := c.status(r)(ctx)
			if err == nil {
				mu.Lock()
				defer mu.Unlock()
				journalled = append(journalled, r)
			}
			return err
		}, false)
	}
	for _, r := range e.Create {
		write(r, func(ctx context.Context) error { return c.client.Create(ctx, r) }, true)
	}
	for _, a := range accounts {
		write(a, c.status(a), false)
	}
	_ = g.Wait() // the functions return nil: every failure is dealt with where it happens
	c.width.adapt(writes)
	for _, r := range journalled {
		c.recorder.committed(r.Name)
		c.log.Info("run journalled", "run", r.Name, "phase", string(r.Status.Phase), "reason", r.Status.Reason)
		c.announce(ctx, r)
	}
	return changed.Load()
}

func (c *Controller) status(obj client.Object) func(context.Context) error {
	return func(ctx context.Context) error { return c.cfg.Statuses.Update(ctx, obj) }
}

// write carries one write out and remembers what it made.
func (c *Controller) write(ctx context.Context, obj client.Object, f func(context.Context) error, created bool) bool {
	bounded, cancel := context.WithTimeout(ctx, c.cfg.WriteTimeout)
	defer cancel()
	err := f(bounded)
	switch {
	case err == nil:
		c.objects.remember(obj, created)
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
