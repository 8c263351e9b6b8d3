package store_test

import (
	"context"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

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
