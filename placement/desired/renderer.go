// Package desired renders, on every hub member, what each cluster should run:
// template and committed decision make the manifests on the fly, and nothing is
// stored per cluster (decision record 0004).
package desired

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	agentv1 "tripod.dev/tripod/proto/agent/v1"

	"tripod.dev/tripod/placement/catalog"
)

// Config of a Renderer.
type Config struct {
	// Catalog is the member's.
	Catalog *catalog.Catalog
	// Incarnation of the hub now.
	Incarnation func() uint64
	// Settle is how long changes are gathered. 10 ms by default.
	Settle time.Duration
	Log    *slog.Logger
}

// Validate says what is missing.
func (c Config) Validate() error {
	if c.Catalog == nil || c.Incarnation == nil {
		return errors.New("renderer: Catalog and Incarnation are needed: give the member's")
	}
	return nil
}

// Renderer streams desired states. It is safe for concurrent use.
type Renderer struct {
	config  Config
	catalog *catalog.Catalog

	mu sync.Mutex
	// rendered are the last renderings by placement and cluster. They are reused
	// while nothing changed, and stand while a decision and its templates have
	// not both arrived.
	rendered map[slot]rendering
}

// New returns a Renderer.
func New(config Config) (*Renderer, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if config.Settle == 0 {
		config.Settle = 10 * time.Millisecond
	}
	if config.Log == nil {
		config.Log = slog.Default()
	}
	return &Renderer{config: config, catalog: config.Catalog, rendered: map[slot]rendering{}}, nil
}

// Watch streams what a cluster should run: the whole state at first and after
// each change. While the receiver is slow, changes are gathered and only the
// latest state is sent. The channel is closed when ctx ends.
func (r *Renderer) Watch(ctx context.Context, cluster string) <-chan *agentv1.DesiredState {
	out := make(chan *agentv1.DesiredState)
	go func() {
		defer close(out)
		r.stream(ctx, cluster, out)
	}()
	return out
}

func (r *Renderer) stream(ctx context.Context, cluster string, out chan<- *agentv1.DesiredState) {
	if err := r.catalog.WaitSynced(ctx); err != nil {
		return
	}
	dirty := make(chan struct{}, 1)
	touch := func() {
		select {
		case dirty <- struct{}{}:
		default:
		}
	}
	stop := r.catalog.Subscribe(func(e catalog.Event) {
		if e.Topic != catalog.TopicCluster || e.Name == cluster {
			touch()
		}
	})
	defer stop()
	touch()
	var sent, next *agentv1.DesiredState
	for {
		var ready chan<- *agentv1.DesiredState
		if next != nil {
			ready = out
		}
		select {
		case <-ctx.Done():
			return
		case ready <- next:
			sent, next = next, nil
		case <-dirty:
			if !r.settle(ctx) {
				return
			}
			if next = r.State(cluster); sameContent(sent, next) {
				next = nil
			}
		}
	}
}

func (r *Renderer) settle(ctx context.Context) bool {
	timer := time.NewTimer(r.config.Settle)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// sameContent tells whether the agent learns nothing from next. A newer revision
// alone is no news, but that a state is complete is.
func sameContent(sent, next *agentv1.DesiredState) bool {
	if sent == nil {
		return false
	}
	compared := proto.CloneOf(next)
	compared.Revision = sent.GetRevision()
	return proto.Equal(sent, compared)
}
