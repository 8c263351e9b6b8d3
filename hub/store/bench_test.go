package store_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"tripod.dev/tripod/hub/store/storetest"
)

// BenchmarkPut and BenchmarkGet report time per operation with a number of
// clients in parallel, all on the leader.
func BenchmarkPut(b *testing.B) {
	value := strings.Repeat("v", 256)
	benchmark(b, func(ctx context.Context, client *clientv3.Client, i int) error {
		_, err := client.Put(ctx, fmt.Sprintf("key-%d", i%10_000), value)
		return err
	})
}

func BenchmarkGet(b *testing.B) {
	benchmark(b, func(ctx context.Context, client *clientv3.Client, i int) error {
		_, err := client.Get(ctx, "key")
		return err
	})
}

func benchmark(b *testing.B, do func(context.Context, *clientv3.Client, int) error) {
	for _, members := range []int{1, 3} {
		c := storetest.Start(b, members, nil)
		leader := c.Leader()
		for _, clients := range []int{1, 16, 64, 256} {
			var pool []*clientv3.Client
			for range min(clients, 16) {
				pool = append(pool, c.Client(leader))
			}
			b.Run(fmt.Sprintf("%d/c=%d", members, clients), func(b *testing.B) {
				var g errgroup.Group
				for n := range clients {
					g.Go(func() error {
						for i := n; i < b.N; i += clients {
							if err := do(b.Context(), pool[n%len(pool)], i); err != nil {
								return err
							}
						}
						return nil
					})
				}
				if err := g.Wait(); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
			})
		}
	}
}

// BenchmarkRange reads a page of 500 small objects, as a list does.
func BenchmarkRange(b *testing.B) {
	c := storetest.Start(b, 1, nil)
	client := c.Client(c.Leader())
	for i := range 1000 {
		if _, err := client.Put(b.Context(), fmt.Sprintf("/range/%04d", i), strings.Repeat("v", 256)); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if _, err := client.Get(b.Context(), "/range/", clientv3.WithPrefix(), clientv3.WithLimit(500)); err != nil {
			b.Fatal(err)
		}
	}
}
