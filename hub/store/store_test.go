package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/storetest"
)

func putOp(key, value string) store.Op {
	return store.Put(&pb.PutRequest{Key: []byte(key), Value: []byte(value)})
}

func TestSingleMemberServesPutAndGet(t *testing.T) {
	c := storetest.Start(t, 1, nil)
	client := c.Client()
	ctx, cancel := context.WithTimeout(context.Background(), storetest.Patience)
	defer cancel()
	put, err := client.Put(ctx, "a", "1")
	if err != nil {
		t.Fatal(err)
	}
	get, err := client.Get(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	if len(get.Kvs) != 1 || string(get.Kvs[0].Value) != "1" || get.Header.Revision != put.Header.Revision {
		t.Fatalf("got %v after put at %d", get, put.Header.Revision)
	}
}

// A client may compact to revision 0, as in etcd; that is no sign of damage later.
func TestAMemberStartsAgainAfterACompactionToNothing(t *testing.T) {
	c := storetest.Start(t, 1, nil)
	put(t, c, c.Leader(), "k", 3)
	if _, err := c.Client(c.Leader()).Compact(patience(t), 0); err != nil {
		t.Fatal(err)
	}
	m := c.Members[0]
	m.Stop()
	m.Start()
	if n := count(t, m, "k"); n != 3 {
		t.Errorf("%d of 3 keys after a restart", n)
	}
}

// A member that stops by itself closes its files while its servers still take calls.
func TestReadsOfAStoppedStoreAreRefused(t *testing.T) {
	c := storetest.Start(t, 1, nil)
	put(t, c, c.Leader(), "k", 1)
	m := c.Members[0]
	if err := m.Store.Enter(); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	go func() { defer close(stopped); m.Stop() }()
	c.Eventually("nobody is let in any more", func() bool {
		if err := m.Store.Enter(); err != nil {
			return errors.Is(err, store.ErrStopped)
		}
		m.Store.Leave()
		return false
	})
	if _, _, err := m.Store.Maintenance().Hashes().HashByRev(0); err != nil {
		t.Errorf("who was let in cannot read: %v", err)
	}
	m.Store.Leave()
	<-stopped
	if _, _, err := m.Store.Range(patience(t), "k"); !errors.Is(err, store.ErrStopped) {
		t.Errorf("a read of a stopped store: %v, want %v", err, store.ErrStopped)
	}
	if err := m.Store.Each(patience(t), "k", func(mvccpb.KeyValue) error { return nil }); !errors.Is(err, store.ErrStopped) {
		t.Errorf("a walk through a stopped store: %v, want %v", err, store.ErrStopped)
	}
}

func TestEveryMemberServesReadsAndWrites(t *testing.T) {
	c := storetest.Start(t, 3, nil)
	c.Leader()
	ctx, cancel := context.WithTimeout(context.Background(), storetest.Patience)
	defer cancel()
	for _, m := range c.Members {
		client := c.Client(m)
		if _, err := client.Put(ctx, "key", m.Name); err != nil {
			t.Fatalf("put through %s: %v", m.Name, err)
		}
		for _, reader := range c.Members {
			get, err := c.Client(reader).Get(ctx, "key")
			if err != nil {
				t.Fatalf("get through %s: %v", reader.Name, err)
			}
			if len(get.Kvs) != 1 || string(get.Kvs[0].Value) != m.Name {
				t.Fatalf("get through %s after put through %s: %v", reader.Name, m.Name, get.Kvs)
			}
		}
	}
}

func TestEachKeyIsVisitedOnce(t *testing.T) {
	c := storetest.Start(t, 1, nil)
	m := c.Leader()
	const keys = 1200 // more than two pages
	var put []*pb.RequestOp
	for i := range keys {
		put = append(put, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: fmt.Appendf(nil, "a/%05d", i), Value: []byte("v")}}})
	}
	put = append(put, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("b"), Value: []byte("v")}}})
	if _, err := m.Store.Propose(context.Background(), store.Txn(&pb.TxnRequest{Success: put})); err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := m.Store.Each(t.Context(), "a/", func(kv mvccpb.KeyValue) error {
		if want := fmt.Sprintf("a/%05d", n); string(kv.Key) != want {
			return fmt.Errorf("got %s, want %s", kv.Key, want)
		}
		n++
		return nil
	}); err != nil || n != keys {
		t.Fatalf("%d of %d keys: %v", n, keys, err)
	}
}
