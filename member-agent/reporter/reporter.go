// Package reporter shows each hub member what is in this cluster: it watches
// every synced resource that the API server serves, holds the objects once, and
// streams them, with the cluster's facts, to any number of hub members.
//
// The objects are cut before they are held (syncer/view): no managed fields, no
// secret values.
package reporter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"

	"tripod.dev/tripod/syncer"
	"tripod.dev/tripod/syncer/view"
)

// Config of a Reporter. Zero values have the defaults said here.
type Config struct {
	// RESTConfig reaches the cluster's own API server. Its rate limits are
	// replaced: the API server's own fairness limits the reporter.
	RESTConfig *rest.Config
	// Selection of the synced resources.
	Selection view.Selection
	// RediscoverEvery bounds how long a newly served resource goes unseen when
	// nothing announced it; 30 s. CustomResourceDefinitions announce theirs.
	RediscoverEvery time.Duration
	// FactsEvery is the least time between two reports of the cluster's facts
	// and of the ages of resources that cannot be watched; 2 s.
	FactsEvery time.Duration
	// KeepDeletes is how many deletions per resource a slow stream may lag
	// behind before the resource is sent anew; 1000.
	KeepDeletes int
	// Batch bounds one message; 256 objects, 128 KiB.
	Batch  syncer.Limit
	Logger *slog.Logger
	Clock  clock.WithTicker

	discovery discoverer
	dynamic   dynamic.Interface
}

func (c Config) withDefaults() Config {
	if c.RediscoverEvery == 0 {
		c.RediscoverEvery = 30 * time.Second
	}
	if c.FactsEvery == 0 {
		c.FactsEvery = 2 * time.Second
	}
	if c.KeepDeletes == 0 {
		c.KeepDeletes = 1000
	}
	if c.Batch == (syncer.Limit{}) {
		c.Batch = syncer.Limit{Objects: 256, Bytes: 128 << 10}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	return c
}

// Validate reports what cannot work.
func (c Config) Validate() error {
	if c.RESTConfig == nil && (c.discovery == nil || c.dynamic == nil) {
		return errors.New("reporter: RESTConfig is missing: give the configuration of the cluster's own API server")
	}
	if c.Batch.Objects < 0 || c.Batch.Bytes < 0 || c.KeepDeletes < 0 {
		return errors.New("reporter: Batch and KeepDeletes are counts: give positive numbers, or 0 for the default")
	}
	return nil
}

// Reporter is safe for concurrent use.
type Reporter struct {
	config Config
	ledger *ledger
	facts  *factsheet
	// rediscover holds a token when something announced new resources.
	rediscover chan struct{}
}

// New makes a Reporter; Run makes it work.
func New(config Config) (*Reporter, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	config = config.withDefaults()
	if config.discovery == nil {
		if err := config.connect(); err != nil {
			return nil, err
		}
	}
	ledger := newLedger(config.KeepDeletes, config.Clock)
	return &Reporter{
		config:     config,
		ledger:     ledger,
		facts:      newFactsheet(),
		rediscover: make(chan struct{}, 1),
	}, nil
}

func (c *Config) connect() error {
	rc := rest.CopyConfig(c.RESTConfig)
	rc.QPS, rc.Burst = -1, 0
	// The watches are many and small: a half-open connection is found by
	// HTTP/2 pings, so no timeout is set here.
	rc.Timeout = 0
	var err error
	if c.dynamic, err = dynamic.NewForConfig(rc); err != nil {
		return fmt.Errorf("make the dynamic client: %w", err)
	}
	dc, err := discovery.NewDiscoveryClientForConfig(rc)
	if err != nil {
		return fmt.Errorf("make the discovery client: %w", err)
	}
	c.discovery = dc
	return nil
}

// Run watches the cluster until ctx ends, and returns when everything that it
// started has ended. It retries for ever: an API server that is away makes the
// picture old, not empty.
func (r *Reporter) Run(ctx context.Context) error {
	watches := newWatches(r)
	defer watches.stop()
	rediscover := r.config.Clock.NewTicker(r.config.RediscoverEvery)
	defer rediscover.Stop()
	facts := r.config.Clock.NewTicker(r.config.FactsEvery)
	defer facts.Stop()
	found := r.discover(ctx, watches)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-facts.C():
			if !found {
				found = r.discover(ctx, watches)
			}
			if r.facts.publish() {
				r.ledger.wake()
			}
		case <-r.rediscover:
			found = r.discover(ctx, watches)
		case <-rediscover.C():
			found = r.discover(ctx, watches)
		}
	}
}
