package store_test

import (
	"errors"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/etcdapi"
	"tripod.dev/tripod/hub/store/storetest"
)

// TestHistoryIsBoundedWithoutAnyClient compacts nothing itself.
func TestHistoryIsBoundedWithoutAnyClient(t *testing.T) {
	c := storetest.Start(t, 1, func(s *store.Config, _ *etcdapi.Config) { s.History = time.Second })
	c.Leader()
	ctx, client := patience(t), c.Client()
	for range 5 {
		if _, err := client.Put(ctx, "key", "v"); err != nil {
			t.Fatal(err)
		}
	}
	c.Eventually("revision 2 is gone", func() bool {
		_, err := client.Get(ctx, "key", clientv3.WithRev(2))
		return errors.Is(err, rpctypes.ErrCompacted)
	})
	if get, err := client.Get(ctx, "key"); err != nil || len(get.Kvs) != 1 {
		t.Fatalf("the newest revision: %v %v", get, err)
	}
}
