// Package controller carries placement decisions into the hub's store. It runs
// on the leader. A step is: read the placement, schedule, commit the tombstones
// of what goes, take back the tombstones of what comes, commit the decision. A
// leader that dies between two of these leaves a state from which the next
// one repeats the step with the same effect.
package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/placement"
	"tripod.dev/tripod/placement/catalog"
)

// Config of a Controller.
type Config struct {
	// RESTConfig reaches the member's own API server.
	RESTConfig *rest.Config
	// Catalog is the member's, kept running also while it does not lead.
	Catalog *catalog.Catalog
	// Reports is the member's.
	Reports *Reports
	// Resync is how often every placement is looked at again. 30 s by default.
	Resync time.Duration
	// Now is wall time for people (conditions). time.Now by default.
	Now func() time.Time
	Log *slog.Logger
}

// Validate says what is missing.
func (c Config) Validate() error {
	switch {
	case c.RESTConfig == nil:
		return errors.New("placement controller: RESTConfig is missing: give the rest.Config of the member's own API server")
	case c.Catalog == nil:
		return errors.New("placement controller: Catalog is missing: give the member's catalog.Catalog")
	case c.Reports == nil:
		return errors.New("placement controller: Reports is missing: give the member's controller.Reports")
	}
	return nil
}

func (c Config) withDefaults() Config {
	if c.Resync == 0 {
		c.Resync = 30 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return c
}

// Controller decides placements while its member leads.
type Controller struct {
	config  Config
	client  client.Client
	catalog *catalog.Catalog
	reports *Reports

	mu sync.Mutex
	// seen are the clusters as of their last event.
	seen map[string]placement.Cluster
}

// New returns a Controller; Run does its work.
func New(config Config) (*Controller, error) {
	config = config.withDefaults()
	if err := config.Validate(); err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{v1alpha1.AddToScheme, corev1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("register kinds: %w", err)
		}
	}
	restConfig := rest.CopyConfig(config.RESTConfig)
	restConfig.QPS, restConfig.Burst = 500, 1000
	c, err := client.New(restConfig, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("make a client of the hub's API: %w", err)
	}
	return &Controller{
		config: config, client: c, catalog: config.Catalog, reports: config.Reports, seen: map[string]placement.Cluster{},
	}, nil
}

// buryingGround is the queue's item for looking after tombstones; placements
// have a namespace.
var buryingGround = types.NamespacedName{Name: "tombstones"}

type queue = workqueue.TypedRateLimitingInterface[types.NamespacedName]

// Run decides until ctx ends, which is when the term does. It may be called
// again in a later term.
func (c *Controller) Run(ctx context.Context) error {
	if err := c.catalog.WaitSynced(ctx); err != nil {
		return nil // the term ended before there was anything to decide
	}
	q := workqueue.NewTypedRateLimitingQueue(
		workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](50*time.Millisecond, 10*time.Second))
	stop := c.catalog.Subscribe(func(e catalog.Event) { c.route(q, e) })
	defer stop()
	c.reports.subscribe(func(_ string, placements map[string]bool) {
		for p := range placements {
			if namespace, name, ok := strings.Cut(p, "/"); ok {
				q.Add(types.NamespacedName{Namespace: namespace, Name: name})
			}
		}
		q.Add(buryingGround)
	})
	defer c.reports.subscribe(nil)
	var running sync.WaitGroup
	running.Go(func() { c.resync(ctx, q) })
	running.Go(func() {
		for c.next(ctx, q) {
		}
	})
	<-ctx.Done()
	q.ShutDown()
	running.Wait()
	return nil
}

func (c *Controller) resync(ctx context.Context, q queue) {
	ticker := time.NewTicker(c.config.Resync)
	defer ticker.Stop()
	for {
		c.all(q, func(*v1alpha1.Placement) bool { return true })
		q.Add(buryingGround)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// all enqueues every placement that is concerned.
func (c *Controller) all(q queue, concerned func(*v1alpha1.Placement) bool) {
	for _, p := range c.catalog.Placements() {
		if concerned(p) {
			q.Add(types.NamespacedName{Namespace: p.Namespace, Name: p.Name})
		}
	}
}

// route finds what an event concerns. A placement's neighbours may wait for it to
// give up a template, and a template may be any neighbour's.
func (c *Controller) route(q queue, e catalog.Event) {
	switch e.Topic {
	case catalog.TopicPlacement:
		q.Add(types.NamespacedName{Namespace: e.Namespace, Name: e.Name})
		c.all(q, func(p *v1alpha1.Placement) bool { return p.Namespace == e.Namespace })
	case catalog.TopicTemplate:
		namespace := cmp.Or(e.Namespace, v1alpha1.NamespaceSystem) // of placements that can select it
		c.all(q, func(p *v1alpha1.Placement) bool { return p.Namespace == namespace && names(p, e.Kind) })
	case catalog.TopicKind:
		c.all(q, func(p *v1alpha1.Placement) bool { return names(p, e.Kind) })
	case catalog.TopicCluster:
		c.routeCluster(q, e.Name)
	case catalog.TopicTombstone:
		q.Add(buryingGround)
		for _, t := range c.catalog.Tombstones() {
			if t.Name == e.Name {
				c.all(q, func(p *v1alpha1.Placement) bool { return wants(t, p.Status.Placed, p.Status.Decisions) })
			}
		}
	}
}

// routeCluster passes over what changes all the time and decides nothing: who
// heard the cluster when. Its free capacity matters to those that divide by it.
func (c *Controller) routeCluster(q queue, name string) {
	var now placement.Cluster
	if cluster := c.catalog.Cluster(name); cluster != nil {
		now = placement.ClusterFrom(cluster)
	}
	c.mu.Lock()
	before := c.seen[name]
	c.seen[name] = now
	c.mu.Unlock()
	free := !reflect.DeepEqual(before.Free, now.Free)
	before.Free, now.Free = nil, nil
	switch {
	case !reflect.DeepEqual(before, now):
		c.all(q, func(*v1alpha1.Placement) bool { return true })
		q.Add(buryingGround)
	case free:
		c.all(q, func(p *v1alpha1.Placement) bool { return p.Spec.Replicas.By == v1alpha1.DivideByFreeCapacity })
	}
}

// names tells whether a placement has to do with a kind.
func names(p *v1alpha1.Placement, kind string) bool {
	return slices.ContainsFunc(p.Spec.Resources, func(r v1alpha1.ResourceSelector) bool { return r.Kind == kind }) ||
		slices.ContainsFunc(p.Status.Placed, func(r v1alpha1.TemplateReference) bool { return r.Kind == kind })
}

func (c *Controller) next(ctx context.Context, q queue) bool {
	item, shutdown := q.Get()
	if shutdown {
		return false
	}
	defer q.Done(item)
	if ctx.Err() != nil {
		return true
	}
	var err error
	if item == buryingGround {
		err = c.tendTombstones(ctx)
	} else {
		err = c.reconcile(ctx, item)
	}
	switch {
	case err == nil:
		q.Forget(item)
	case ctx.Err() != nil:
	case apierrors.IsConflict(err), errors.Is(err, errChanging):
		q.AddRateLimited(item)
	default:
		c.config.Log.Warn("could not carry out a placement step", "placement", item.String(), "error", err)
		q.AddRateLimited(item)
	}
	return true
}
