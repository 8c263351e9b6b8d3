package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/watch"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prometheus/client_golang/prometheus"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/failover/hook"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// Namespace of the hub that holds the evidence.
const Namespace = "tripod-system"

// Controller is described in the package comment. Run must not be called again
// before it has returned.
type Controller struct {
	cfg       Config
	log       *slog.Logger
	client    client.Client
	cache     cache.Cache // nil in tests that read directly
	objects   *objects
	sender    *sender
	recorder  recorder
	archive   *archive
	readiness *readiness
	accounts  accounts
	width     *width
	announced map[string]v1alpha1.RunPhase // the phase of each run that people were last told of
	events    chan struct{}                // a place for each event that is written
	hooks     *hook.Runner
	prober    *prober
	metrics   *metrics

	started   time.Time
	woken     chan struct{}
	detection failover.Detection
	// next is when the next turn comes, on uptime's clock, if nothing wakes the engine
	// before: a tick later, or when a lease ends, because a failover waits for that.
	next time.Duration
	// rested is when the engine may turn again, careful when a turn is not brief again;
	// ends is when the next lease does, which waits for neither.
	rested, careful, ends time.Duration
	// since and afterOutage describe the term: see failover.Fleet.
	since       time.Duration
	afterOutage *bool
}

// Scheme holds every kind that the engine reads or writes.
func Scheme() *runtime.Scheme {
	s := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(s))
	utilruntime.Must(v1alpha1.AddToScheme(s))
	return s
}

// New makes a controller on the member's own API server, which need not serve
// yet. It starts nothing: see Warm and Run.
func New(cfg Config) (*Controller, error) {
	cfg.defaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Rest == nil || cfg.Feeds == nil {
		return nil, errors.New("failover controller: Rest or Feeds is nil: give the member's own API server")
	}
	rc := rest.CopyConfig(cfg.Rest)
	rc.QPS = -1 // in-process; a recovery must not queue behind a rate limit
	scheme := Scheme()
	cl, err := client.New(rc, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	var c *Controller // informers are made by Warm
	ca, err := cache.New(rc, cache.Options{Scheme: scheme, NewInformer: func(_ toolscache.ListerWatcher, obj runtime.Object, resync time.Duration, indexers toolscache.Indexers) toolscache.SharedIndexInformer {
		informer := toolscache.NewSharedIndexInformer(source(cfg.Feeds, obj), obj, resync, indexers)
		c.objects.informed(obj, informer.GetStore())
		return informer
	}})
	if err != nil {
		return nil, fmt.Errorf("make cache: %w", err)
	}
	c = newController(cfg, cl, ca)
	c.cache = ca
	return c, nil
}

func newController(cfg Config, cl client.Client, cached client.Reader) *Controller {
	cfg.defaults()
	c := &Controller{cfg: cfg, log: cfg.Log, client: cl, objects: newObjects(cached, cl), started: time.Now(), width: newWidth(), announced: map[string]v1alpha1.RunPhase{},
		woken: make(chan struct{}, 1), events: make(chan struct{}, eventsAtOnce), metrics: newMetrics()}
	c.sender = newSender(cfg.Directives, c.uptime, c.Wake, c.metrics)
	c.readiness = &readiness{metrics: c.metrics, announce: c.tellOf, known: map[types.NamespacedName]told{}, plans: map[string]string{}}
	c.hooks = newHooks(cl, cached, cfg.Clusters)
	c.prober = &prober{hooks: c.hooks, client: cl}
	c.recorder = recorder{member: cfg.Member, signer: cfg.Signer}
	c.recorder.reset()
	c.archive = &archive{client: cl, statuses: cfg.Statuses, clock: c.uptime, log: c.log, stuck: c.metrics.unarchived, wrote: func(r *v1alpha1.RecoveryRun) { c.objects.remember(r, false) }}
	return c
}

// source is the feed of a kind; of one that has none the informer says so at each attempt.
func source(feeds Feeds, obj runtime.Object) toolscache.ListerWatcher {
	var from toolscache.ListerWatcher
	err := fmt.Errorf("%T is no object", obj)
	if object, ok := obj.(client.Object); ok {
		from, err = feeds.Of(object)
	}
	if err == nil {
		return from
	}
	return &toolscache.ListWatch{
		ListWithContextFunc:  func(context.Context, metav1.ListOptions) (runtime.Object, error) { return nil, err },
		WatchFuncWithContext: func(context.Context, metav1.ListOptions) (watch.Interface, error) { return nil, err },
	}
}

// Collectors returns the controller's metrics for the member's registry.
func (c *Controller) Collectors() []prometheus.Collector { return c.metrics.all() }

// uptime is this process's monotonic clock.
func (c *Controller) uptime() time.Duration { return time.Since(c.started) }

// Wake makes the next turn come at once. It never blocks.
func (c *Controller) Wake() {
	select {
	case c.woken <- struct{}{}:
	default:
	}
}

// Warm keeps the caches filled on every member, leader or not, until ctx ends.
func (c *Controller) Warm(ctx context.Context) error {
	for _, obj := range []client.Object{&v1alpha1.Cluster{}, &v1alpha1.Application{}, &v1alpha1.Dataset{}, &v1alpha1.GlobalService{},
		&v1alpha1.RecoveryRun{}, &v1alpha1.RecoveryPlan{}, &v1alpha1.Approval{}, &v1alpha1.Placement{}} {
		if err := c.watch(ctx, obj); err != nil {
			return err
		}
	}
	return c.cache.Start(ctx)
}

// watch registers one informer; it waits for the API server to serve the kind.
func (c *Controller) watch(ctx context.Context, obj client.Object) error {
	for {
		informer, err := c.cache.GetInformer(ctx, obj, cache.BlockUntilSynced(false))
		if err == nil {
			_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
				AddFunc:    func(any) { c.Wake() },
				UpdateFunc: func(any, any) { c.Wake() },
				DeleteFunc: func(any) { c.Wake() },
			})
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// Run is the engine while this member leads. It acts only after what is
// committed has been read from the API server, returns when ctx ends, and has
// then nothing left in work.
func (c *Controller) Run(ctx context.Context) error {
	defer c.sender.running.Wait()
	c.sender.reset()
	c.recorder.reset()
	c.archive.reset()
	clear(c.announced)
	c.prober.reset()
	c.readiness.begin()
	defer c.readiness.begin() // a follower says nothing about readiness
	c.metrics.begin()
	defer c.metrics.begin()
	c.detection, c.since, c.afterOutage = failover.Detection{}, c.uptime(), nil
	c.accounts = accounts{}
	c.rested, c.careful, c.ends = 0, 0, 0
	if err := c.prepare(ctx); err != nil {
		return err
	}
	for {
		if rest := min(c.rested, c.ends) - c.uptime(); rest > 0 {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(rest):
			}
		}
		c.next, c.ends = c.uptime()+c.cfg.Tick, math.MaxInt64
		again, err := c.turn(ctx)
		if err != nil && ctx.Err() == nil {
			c.log.Error("engine turn failed", "error", err)
		}
		if again {
			if ctx.Err() != nil {
				return nil
			}
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(c.next - c.uptime()):
		case <-c.woken:
		}
	}
}

// prepare retries until the committed state could be read.
func (c *Controller) prepare(ctx context.Context) error {
	if c.cache != nil && !c.cache.WaitForCacheSync(ctx) {
		return nil
	}
	for ctx.Err() == nil {
		err := c.objects.refreshAll(ctx)
		if err == nil {
			err = c.ensureNamespace(ctx)
		}
		if err == nil {
			return nil
		}
		c.log.Warn("engine waits for the API server", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(c.cfg.Tick):
		}
	}
	return nil
}

func (c *Controller) ensureNamespace(ctx context.Context) error {
	err := c.client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: Namespace}})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create namespace %s for evidence: %w", Namespace, err)
	}
	return nil
}

// turn is one turn; again is true when it wrote something, so that what it
// justified can be commanded at once.
func (c *Controller) turn(ctx context.Context) (again bool, err error) {
	begin := time.Now()
	s, err := c.snapshot(ctx)
	if err != nil {
		return false, err
	}
	e := failover.Turn(s)
	took := time.Since(begin)
	c.metrics.turns.Observe(took.Seconds())
	c.pace(s.Brief, took)
	c.report(e)
	c.metrics.lost(s.Fleet.Clusters, e.Detection.Losses)
	accounts := c.accounts.choose(e, c.uptime())
	c.readiness.tell(ctx, s.Applications, chosen[*v1alpha1.Application](accounts))
	c.readiness.tellPlans(ctx, s.Plans, chosen[*v1alpha1.RecoveryPlan](accounts))
	if round, due := c.prober.due(s); due {
		c.sender.running.Go(func() { c.prober.round(ctx, round) })
	}
	if round := c.archive.due(s.Runs); len(round) > 0 {
		c.sender.running.Go(func() { c.archive.round(ctx, round) })
	}
	c.detection = e.Detection
	c.command(ctx, s.Datasets, e.Commands)
	for _, call := range e.Hooks {
		c.hook(ctx, call)
	}
	c.sender.forget(unfinished(s), s.Uptime)
	again = c.commit(ctx, e, accounts)
	c.accounts.written(c.uptime())
	return again, nil
}

// A turn over a thousand applications takes tens of milliseconds of a processor, and in
// a large fleet something wakes the engine all the time. So a turn may take one part in
// turnShare of the time, and one that looks at everything one part in careShare; what
// neither may exceed is how late the engine is for that. In a small fleet these are
// fractions of a millisecond.
const (
	turnShare, turnLate = 4, 250 * time.Millisecond
	careShare, careLate = 16, time.Second
)

// pace notes when the next turn may come after one that took so long to think through.
func (c *Controller) pace(brief bool, took time.Duration) {
	began := c.uptime() - took
	c.rested = began + min(turnShare*took, turnLate)
	if !brief {
		c.careful = began + min(careShare*took, careLate)
	}
}

// report tells people and metrics what changed in the fleet's classification.
func (c *Controller) report(e failover.Effects) {
	for name, class := range e.Detection.Classes {
		if old := c.detection.Classes[name]; old != class {
			c.log.Info("cluster classified", "cluster", name, "class", string(class), "was", string(old), "reason", e.Detection.Reasons[name])
			c.metrics.class(name, old, class)
		}
	}
	if e.Detection.Breaker != c.detection.Breaker {
		if e.Detection.Breaker == "" {
			c.log.Info("breaker closed: automatic actions are taken again")
		} else {
			c.log.Warn("breaker open", "reason", e.Detection.Breaker)
		}
		c.metrics.setBreaker(e.Detection.Breaker != "")
	}
}

func unfinished(s *failover.Snapshot) func(run string) bool {
	open := map[string]bool{}
	for _, r := range s.Runs {
		if !failover.Finished(r.Status.Phase) {
			open[r.Name] = true
		}
	}
	return func(run string) bool { return open[run] }
}
