package store

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"tripod.dev/tripod/test/bench/load"
	"tripod.dev/tripod/test/storefleet"
)

// watchFanout is how many events a second reach that many watchers of one object
// which one client writes as fast as it can; every watcher must see every event.
func (b *bed) watchFanout(ctx context.Context, watchers int) (float64, error) {
	open, err := b.connect(ctx, connections(watchers))
	if err != nil {
		return 0, err
	}
	defer closeAll(open)
	ctx, cancel := context.WithTimeout(ctx, b.config.Duration+time.Minute)
	defer cancel()
	const k = "/bench/watched"
	first, err := open[0].Put(ctx, k, "first")
	if err != nil {
		return 0, err
	}
	var seen atomic.Int64
	var last atomic.Int64 // the revision at which watchers end; 0 as long as it is not known
	var watching sync.WaitGroup
	problems := make(chan error, watchers)
	for w := range watchers {
		watching.Go(func() {
			if err := watchUntil(ctx, open[w%len(open)], k, first.Header.Revision+1, &last, &seen); err != nil {
				problems <- err
				cancel()
			}
		})
	}
	start := time.Now()
	var written int64
	for time.Since(start) < b.config.Duration {
		if _, err := open[0].Put(ctx, k, "next"); err != nil {
			return 0, err
		}
		written++
	}
	last.Store(first.Header.Revision + written + 1)
	if _, err := open[0].Put(ctx, k, "last"); err != nil {
		return 0, err
	}
	watching.Wait()
	took := time.Since(start)
	select {
	case err := <-problems:
		return 0, err
	default:
	}
	if want := (written + 1) * int64(watchers); seen.Load() != want {
		return 0, fmt.Errorf("%d events were seen, %d were due", seen.Load(), want)
	}
	return float64(seen.Load()) / took.Seconds(), nil
}

// watchUntil counts the events of key up to the revision last, once that is known.
func watchUntil(ctx context.Context, c *clientv3.Client, key string, from int64, last, seen *atomic.Int64) error {
	for r := range c.Watch(ctx, key, clientv3.WithRev(from)) {
		if err := r.Err(); err != nil {
			return fmt.Errorf("watch: %w", err)
		}
		seen.Add(int64(len(r.Events)))
		if n := len(r.Events); n > 0 && r.Events[n-1].Kv.ModRevision == last.Load() {
			return nil
		}
	}
	return fmt.Errorf("watch: %w", ctx.Err())
}

// memory of all members together with 100,000 objects, after what was measured
// before, in MiB.
func (b *bed) memory(ctx context.Context) (float64, error) {
	if err := b.fillTo(ctx, 100_000); err != nil {
		return 0, err
	}
	var sum int64
	for _, m := range b.fleet.Members {
		bytes, err := m.Memory()
		if err != nil {
			return 0, err
		}
		sum += bytes
	}
	return float64(sum) / (1 << 20), nil
}

// restart is how long a member that was killed takes from its start to its first
// linearizable answer, with that many objects, in seconds.
func (b *bed) restart(ctx context.Context, objects int) (float64, error) {
	if err := b.fillTo(ctx, objects); err != nil {
		return 0, err
	}
	follower, err := b.follower(ctx)
	if err != nil {
		return 0, err
	}
	if err := follower.Kill(); err != nil {
		return 0, err
	}
	start := time.Now()
	if err := follower.Start(); err != nil {
		return 0, err
	}
	err = follower.AwaitReady(ctx)
	return time.Since(start).Seconds(), err
}

func (b *bed) follower(ctx context.Context) (*storefleet.Member, error) {
	leader, err := b.fleet.AwaitLeader(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(b.fleet.Members, func(m *storefleet.Member) bool { return m != leader })
	return b.fleet.Members[i], nil
}

// leaderKillGap is the 99th percentile, over that many kills of the leader, of the
// longest time in which no write of four clients of all members was acknowledged.
func (b *bed) leaderKillGap(ctx context.Context, kills int) (float64, error) {
	var gaps []time.Duration
	for n := range kills {
		gap, err := b.killLeader(ctx)
		if err != nil {
			return 0, fmt.Errorf("kill %d: %w", n+1, err)
		}
		gaps = append(gaps, gap)
		fmt.Fprintf(b.config.Progress, "%s: kill %d of %d: no write for %.3f s\n", b.fleet.Kind.Name(), n+1, kills, gap.Seconds())
	}
	slices.Sort(gaps)
	return load.Quantile(gaps, 0.99).Seconds(), nil
}

func (b *bed) killLeader(ctx context.Context) (time.Duration, error) {
	leader, err := b.fleet.AwaitLeader(ctx)
	if err != nil {
		return 0, err
	}
	writing, stop := context.WithCancel(ctx)
	defer stop()
	acknowledged := make(chan time.Time, 4096)
	var writers sync.WaitGroup
	for w := range 4 {
		c, err := b.fleet.Client()
		if err != nil {
			return 0, err
		}
		writers.Go(func() {
			defer func() { _ = c.Close() }()
			for writing.Err() == nil {
				attempt, cancel := context.WithTimeout(writing, 300*time.Millisecond)
				_, err := c.Put(attempt, key(w), "gap")
				cancel()
				if err == nil {
					acknowledged <- time.Now()
				}
			}
		})
	}
	go func() { writers.Wait(); close(acknowledged) }()
	gap, err := watchGap(ctx, acknowledged, leader.Kill)
	stop()
	for range acknowledged { // the writers end
	}
	if err != nil {
		return 0, err
	}
	if err := leader.Start(); err != nil {
		return 0, err
	}
	return gap, b.fleet.AwaitReady(ctx)
}

// watchGap lets writes go on for 200 of them, kills, and waits for 200 more; the
// longest time between two is the gap.
func watchGap(ctx context.Context, acknowledged <-chan time.Time, kill func() error) (longest time.Duration, err error) {
	const before, after = 200, 200
	var last time.Time
	for n := range before + after {
		select {
		case at := <-acknowledged:
			if n > before {
				longest = max(longest, at.Sub(last))
			}
			last = at
		case <-time.After(time.Minute):
			return 0, fmt.Errorf("no write was acknowledged for a minute")
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		if n == before {
			if err := kill(); err != nil {
				return 0, err
			}
		}
	}
	return longest, nil
}
