package store

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"tripod.dev/tripod/test/bench/load"
	"tripod.dev/tripod/test/bench/report"
)

var (
	clientCounts = []int{1, 16, 256, 1000}
	sizes        = []struct {
		name  string
		bytes int
	}{{"256B", 256}, {"4KiB", 4096}}
)

// rows of fleets with that many members.
func rows(members int, c Config) []row {
	var all []row
	perSecond := func(name string, clients int, op func(on *bed) operation) {
		all = append(all, row{Name: name, Unit: "op/s", Better: report.Higher, Measure: func(ctx context.Context, on *bed) (float64, error) {
			return on.throughput(ctx, on.connect, clients, op(on))
		}})
	}
	restart := func(name string) row {
		return row{Name: name, Unit: "s", Better: report.Lower, Measure: func(ctx context.Context, on *bed) (float64, error) { return on.restart(ctx, 100_000) }}
	}
	if members > 1 {
		all = append(all, restart("store/restart/100k")) // before the others have written millions of revisions
	}
	for _, clients := range clientCounts {
		for _, size := range sizes {
			perSecond(fmt.Sprintf("store/put/%d/c=%d/%s", members, clients, size.name), clients, func(on *bed) operation { return on.put(size.bytes) })
		}
		perSecond(fmt.Sprintf("store/txn/%d/c=%d/256B", members, clients), clients, func(on *bed) operation { return on.update(clients) })
		perSecond(fmt.Sprintf("store/get-linearizable/%d/c=%d/256B", members, clients), clients, func(on *bed) operation { return on.get() })
		perSecond(fmt.Sprintf("store/get-serializable/%d/c=%d/256B", members, clients), clients, func(on *bed) operation { return on.get(clientv3.WithSerializable()) })
	}
	for _, clients := range []int{1, 16} {
		perSecond(fmt.Sprintf("store/range/%d/c=%d/500x256B", members, clients), clients, func(on *bed) operation { return on.rangeOf(500) })
	}
	if members == 1 {
		return all
	}
	for _, clients := range []int{1, 16} {
		name := fmt.Sprintf("store/get-through-follower/%d/c=%d/256B", members, clients)
		all = append(all, row{Name: name, Unit: "op/s", Better: report.Higher, Measure: func(ctx context.Context, on *bed) (float64, error) {
			return on.throughput(ctx, on.connectFollower, clients, on.get())
		}})
	}
	return append(all,
		row{Name: "store/watch-fanout/1000", Unit: "event/s", Better: report.Higher, Measure: func(ctx context.Context, on *bed) (float64, error) { return on.watchFanout(ctx, 1000) }},
		row{Name: "store/memory/3", Unit: "MiB", Better: report.Lower, Once: true, Measure: func(ctx context.Context, on *bed) (float64, error) { return on.memory(ctx) }},
		restart("store/restart/after-all"),
		row{Name: "store/leader-kill-gap/p99", Unit: "s", Better: report.Lower, Once: true, Measure: func(ctx context.Context, on *bed) (float64, error) { return on.leaderKillGap(ctx, c.Kills) }},
	)
}

// operation is one request of client, its n-th.
type operation func(ctx context.Context, c *clientv3.Client, client, n int) error

// connections of a number of clients, as etcd's own benchmark shares them.
func connections(clients int) int {
	switch {
	case clients <= 16:
		return clients
	case clients <= 256:
		return 32
	default:
		return 100
	}
}

// throughput of op on the member that connect leads to.
func (b *bed) throughput(ctx context.Context, connect func(context.Context, int) ([]*clientv3.Client, error), clients int, op operation) (float64, error) {
	open, err := connect(ctx, connections(clients))
	if err != nil {
		return 0, err
	}
	defer closeAll(open)
	r, err := load.Load{Clients: clients, Warmup: min(b.config.Duration/3, time.Second), Duration: b.config.Duration,
		Do: func(ctx context.Context, client, n int) error { return op(ctx, open[client%len(open)], client, n) }}.Run(ctx)
	return r.PerSecond, err
}

func (b *bed) put(bytes int) operation {
	value := valueOf(bytes)
	return func(ctx context.Context, c *clientv3.Client, client, n int) error {
		_, err := c.Put(ctx, key(client*7919+n), value)
		return err
	}
}

// update is what an API server does for every write: a transaction that replaces
// one revision of an object, each client its own.
func (b *bed) update(clients int) operation {
	value := valueOf(256)
	revisions := make([]int64, clients)
	return func(ctx context.Context, c *clientv3.Client, client, _ int) error {
		k := fmt.Sprintf("/bench/update/%06d", client)
		r, err := c.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(k), "=", revisions[client])).
			Then(clientv3.OpPut(k, value)).Else(clientv3.OpGet(k)).Commit()
		switch {
		case err != nil:
			return err
		case r.Succeeded:
			revisions[client] = r.Header.Revision
		default: // an earlier row wrote it
			revisions[client] = r.Responses[0].GetResponseRange().Kvs[0].ModRevision
		}
		return nil
	}
}

func (b *bed) get(options ...clientv3.OpOption) operation {
	return func(ctx context.Context, c *clientv3.Client, client, n int) error {
		r, err := c.Get(ctx, key(client*7919+n), options...)
		if err == nil && len(r.Kvs) != 1 {
			return fmt.Errorf("read %d objects instead of one", len(r.Kvs))
		}
		return err
	}
}

func (b *bed) rangeOf(objects int64) operation {
	return func(ctx context.Context, c *clientv3.Client, _, _ int) error {
		r, err := c.Get(ctx, rangePrefix, clientv3.WithPrefix(), clientv3.WithLimit(objects))
		if err == nil && int64(len(r.Kvs)) != objects {
			return fmt.Errorf("read %d objects instead of %d", len(r.Kvs), objects)
		}
		return err
	}
}
