package etcdapi_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/etcdapi"
	"tripod.dev/tripod/hub/store/storetest"
)

// A member that had lost the others refused each new watch at once, and its own
// API server opened 2,700 a second for half a minute.
func TestAWatchWithoutALeaderIsRefusedOnlyAfterAWhile(t *testing.T) {
	const patience = time.Second
	c := storetest.Start(t, 3, func(_ *store.Config, api *etcdapi.Config) { api.LeaderLoss = patience })
	alone := c.Follower()
	for _, m := range c.Members {
		if m != alone {
			m.Stop()
		}
	}
	c.Eventually("the member knows no leader", func() bool { return alone.Store.Membership().LeaderID() == 0 })
	client := c.Client(alone)
	ctx, stop := context.WithTimeout(clientv3.WithRequireLeader(t.Context()), storetest.Patience)
	defer stop()
	begun := time.Now()
	var refusal error
	for response := range client.Watch(ctx, "a") {
		refusal = response.Err()
	}
	if !errors.Is(refusal, rpctypes.ErrNoLeader) {
		t.Errorf("the watch ended with %v, want %v", refusal, rpctypes.ErrNoLeader)
	}
	if took := time.Since(begun); took < patience {
		t.Errorf("refused after %v, want %v at least", took, patience)
	}
}
