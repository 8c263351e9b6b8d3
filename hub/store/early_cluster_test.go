package store_test

import (
	"context"
	"sync/atomic"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/etcdapi"
	"tripod.dev/tripod/hub/store/storetest"
)

// TestALeaderSendsWhileItWrites: the disk of the leader stands still; the others get
// the entry all the same, and the client its answer when the leader has it too.
func TestALeaderSendsWhileItWrites(t *testing.T) {
	var slow atomic.Pointer[string]
	release := make(chan struct{})
	var released, appended atomic.Int64
	c := storetest.Start(t, 3, func(config *store.Config, _ *etcdapi.Config) {
		name := config.Name
		config.Fail = func(p store.Point) error {
			leader := slow.Load()
			switch {
			case leader == nil:
			case p == store.BeforeLogSync && name == *leader:
				<-release
			case p == store.AfterLogAppend && name != *leader:
				appended.Add(1)
			}
			return nil
		}
	})
	leader := c.Leader()
	client := c.Client(leader)
	if _, err := client.Put(context.Background(), "k", "before"); err != nil {
		t.Fatal(err)
	}
	before := leader.Store.Revision()
	slow.Store(&leader.Name)
	done := make(chan error, 1)
	go func() {
		_, err := client.Put(context.Background(), "k", "after")
		if released.Load() == 0 {
			t.Error("the write was acknowledged before the leader had it on disk")
		}
		done <- err
	}()
	c.Eventually("both followers have the entry", func() bool { return appended.Load() >= 2 })
	for _, m := range c.Members {
		if r := m.Store.Revision(); r != before {
			t.Errorf("%s has applied revision %d, want %d: the leader has nothing on disk", m.Name, r, before)
		}
	}
	released.Store(1)
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	got, err := client.Get(context.Background(), "k", clientv3.WithSerializable())
	if err != nil || string(got.Kvs[0].Value) != "after" {
		t.Errorf("read %v, %v", got, err)
	}
}
