package store_test

import (
	"context"
	"testing"

	"go.uber.org/goleak"

	"tripod.dev/tripod/hub/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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
