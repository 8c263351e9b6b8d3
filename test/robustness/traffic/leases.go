package traffic

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"tripod.dev/tripod/test/robustness/model"
)

// leaseTTL is the shortest whole number of seconds that outlives an election.
const leaseTTL = 2

// keep is a client that puts keys on leases, renews those for a while and then
// leaves them, or ends them.
func (t *Traffic) keep(ctx context.Context, random *rand.Rand, id int, member string, c *clientv3.Client) {
	for n := 0; rest(ctx, 200*time.Millisecond); n++ {
		lease := model.Lease{Granted: t.recorder.now()}
		attempt, cancel := context.WithTimeout(ctx, patience)
		granted, err := c.Grant(attempt, leaseTTL)
		cancel()
		if err != nil {
			continue // a lease without keys, of which nobody knows
		}
		lease.ID, lease.TTL = int64(granted.ID), time.Duration(granted.TTL)*time.Second
		for i := range 2 {
			key := fmt.Sprintf("%s%s/%d/%d", Leased, member, n, i)
			attempt, cancel := context.WithTimeout(ctx, patience)
			t.do(attempt, id, member, c, model.Request{Kind: model.Put, Key: key, Value: t.recorder.value(), Lease: lease.ID})
			cancel()
		}
		for range random.IntN(6) {
			if !rest(ctx, time.Duration(300+random.IntN(900))*time.Millisecond) || !t.renew(ctx, c, &lease) {
				break
			}
		}
		if random.IntN(4) == 0 {
			lease.Revoked = t.recorder.now()
			attempt, cancel := context.WithTimeout(ctx, patience)
			_, _ = c.Revoke(attempt, granted.ID) // it ends by itself otherwise
			cancel()
		}
		t.recorder.note(func(h *model.History) { h.Leases = append(h.Leases, lease) })
	}
}

// renew asks once for more time; false if there is none.
func (t *Traffic) renew(ctx context.Context, c *clientv3.Client, lease *model.Lease) bool {
	renewal := model.Renewal{Call: t.recorder.now()}
	attempt, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := c.KeepAliveOnce(attempt, clientv3.LeaseID(lease.ID))
	renewal.Return = t.recorder.now()
	switch {
	case err == nil:
		renewal.Alive = true
	case !errors.Is(err, rpctypes.ErrLeaseNotFound):
		return true // whether it was renewed is unknown; a later one may tell
	}
	lease.Renewals = append(lease.Renewals, renewal)
	return renewal.Alive
}
