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
	effector *Effector
	work     *sync.WaitGroup
	shares   map[driver.ManyObserver]*share
}

// share is what one driver is to look at next.
type share struct {
	roles  []*agentv1.RoleGrant
	asking atomic.Bool
}

// atOnce keeps an answer far below the 4 MiB that gRPC takes.
const atOnce = 1000

func newTogether(e *Effector, work *sync.WaitGroup) *together {
	return &together{e, work, map[driver.ManyObserver]*share{}}
}

// add takes a role whose copy the next observe is to look at; it is false for one that
// must be looked at by itself.
func (t *together) add(role *agentv1.RoleGrant) bool {
	d, err := t.effector.driver(role)
	many, ok := d.(driver.ManyObserver)
	if err != nil || !ok {
		return false
	}
	if t.shares[many] == nil {
		t.shares[many] = &share{}
	}
	t.shares[many].roles = append(t.shares[many].roles, role)
	return true
}

// observe looks at what was added, unless that goes on since an earlier tick.
func (t *together) observe(ctx context.Context) {
	for many, s := range t.shares {
		roles := s.roles
		s.roles = nil
		if len(roles) == 0 {
			continue
		}
		once(&s.asking, t.work, func() {
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
		datasets = append(datasets, t.effector.dataset(role))
	}
	begun := time.Now()
	for i, o := range many.ObserveMany(ctx, datasets) {
		s := t.effector.site(keyOf(roles[i].GetDataset()))
		if o != nil {
			s.keep(*o, begun)
			continue
		}
		once(&s.observing, t.work, func() { t.effector.observe(ctx, s, roles[i]) })
	}
}
