package effector

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tripod.dev/tripod/failover/driver"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// together observes the copies of a driver that can do that in one call: a thousand
// calls a second through a socket are a tenth of a processor at each end. It belongs to
// rounds.
type together struct {
	*Effector
	work  *sync.WaitGroup
	roles map[driver.ManyObserver][]*agentv1.RoleGrant
	// asked are the drivers that have a call under way.
	asked map[driver.ManyObserver]*atomic.Bool
}

// atOnce keeps an answer far below the 4 MiB that gRPC takes.
const atOnce = 1000

func newTogether(e *Effector, work *sync.WaitGroup) *together {
	return &together{e, work, map[driver.ManyObserver][]*agentv1.RoleGrant{}, map[driver.ManyObserver]*atomic.Bool{}}
}

// add takes a role whose copy the next observe is to look at; it is false for one that
// must be looked at by itself.
func (t *together) add(role *agentv1.RoleGrant) bool {
	d, err := t.driver(role)
	if err != nil {
		return false
	}
	many, ok := d.(driver.ManyObserver)
	if ok {
		t.roles[many] = append(t.roles[many], role)
	}
	return ok
}

// observe looks at what was added, unless that goes on since an earlier tick.
func (t *together) observe(ctx context.Context) {
	for many, roles := range t.roles {
		delete(t.roles, many)
		asked := t.asked[many]
		if asked == nil {
			asked = &atomic.Bool{}
			t.asked[many] = asked
		}
		if !asked.CompareAndSwap(false, true) {
			continue
		}
		t.work.Go(func() {
			defer asked.Store(false)
			for some := range slices.Chunk(roles, atOnce) {
				t.ask(ctx, many, some)
			}
		})
	}
}

// ask counts what it is told from when it asked: a directive may change a copy meanwhile.
func (t *together) ask(ctx context.Context, many driver.ManyObserver, roles []*agentv1.RoleGrant) {
	datasets := make([]driver.Dataset, 0, len(roles))
	for _, role := range roles {
		datasets = append(datasets, t.dataset(role))
	}
	begun := time.Now()
	for i, o := range many.ObserveMany(ctx, datasets) {
		s := t.site(keyOf(roles[i].GetDataset()))
		if o != nil {
			s.keep(*o, begun)
			continue
		}
		s.once(&s.observing, t.work, func() { t.Effector.observe(ctx, s, roles[i]) })
	}
}
