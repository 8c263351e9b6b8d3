package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"

	"tripod.dev/tripod/test/storefleet"
)

// bed is a fleet with data that is measured on.
type bed struct {
	fleet  *storefleet.Fleet
	config Config
	filled int
}

const (
	keys        = 10_000
	rangePrefix = "/bench/range/"
	fillPrefix  = "/bench/fill/"
)

func key(n int) string { return fmt.Sprintf("/bench/object/%06d", n%keys) }

func valueOf(bytes int) string { return strings.Repeat("v", bytes) }

// Name implements report.Bench.
func (b *bed) Name() string { return b.fleet.Kind.Name() }

func (b *bed) close() error { return b.fleet.Stop() }

// fill writes what the reads read.
func (b *bed) fill(ctx context.Context) error {
	if err := b.write(ctx, keys, key); err != nil {
		return err
	}
	return b.write(ctx, 1000, func(n int) string { return fmt.Sprintf("%s%06d", rangePrefix, n) })
}

// write puts n objects of 256 bytes, many in a transaction.
func (b *bed) write(ctx context.Context, n int, name func(int) string) error {
	const inOne, writers = 100, 8
	open, err := b.connect(ctx, writers)
	if err != nil {
		return err
	}
	defer closeAll(open)
	value := valueOf(256)
	failed := make([]error, writers)
	var wait sync.WaitGroup
	for w := range writers {
		wait.Go(func() {
			for from := w * inOne; from < n && failed[w] == nil; from += writers * inOne {
				var puts []clientv3.Op
				for i := from; i < min(from+inOne, n); i++ {
					puts = append(puts, clientv3.OpPut(name(i), value))
				}
				failed[w] = b.commit(ctx, open[w], puts)
			}
		})
	}
	wait.Wait()
	for _, err := range failed {
		if err != nil {
			return fmt.Errorf("write objects: %w", err)
		}
	}
	return nil
}

// commit writes in one transaction, or one by one where only what an API server
// does is understood.
func (b *bed) commit(ctx context.Context, c *clientv3.Client, puts []clientv3.Op) error {
	if _, simple := b.fleet.Kind.(storefleet.Kine); !simple {
		_, err := c.Txn(ctx).Then(puts...).Commit()
		return err
	}
	for _, put := range puts {
		created := clientv3.Compare(clientv3.ModRevision(string(put.KeyBytes())), "=", 0)
		if _, err := c.Txn(ctx).If(created).Then(put).Commit(); err != nil {
			return err
		}
	}
	return nil
}

// fillTo makes sure that there are at least n objects.
func (b *bed) fillTo(ctx context.Context, n int) error {
	if b.filled >= n {
		return nil
	}
	from := b.filled
	b.filled = n
	return b.write(ctx, n-from, func(i int) string { return fmt.Sprintf("%s%07d", fillPrefix, from+i) })
}

// connect opens n connections to the leader.
func (b *bed) connect(ctx context.Context, n int) ([]*clientv3.Client, error) {
	leader, err := b.fleet.AwaitLeader(ctx)
	if err != nil {
		return nil, err
	}
	return leader.Connections(ctx, n)
}

// connectFollower opens n connections to a member that does not lead.
func (b *bed) connectFollower(ctx context.Context, n int) ([]*clientv3.Client, error) {
	leader, err := b.fleet.AwaitLeader(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range b.fleet.Members {
		if m != leader {
			return m.Connections(ctx, n)
		}
	}
	return nil, errors.New("the fleet has no follower")
}

func closeAll(clients []*clientv3.Client) {
	for _, c := range clients {
		_ = c.Close()
	}
}
