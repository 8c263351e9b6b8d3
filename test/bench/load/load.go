// Package load drives a system in a closed loop: a fixed number of clients, each
// of which begins its next operation when the last one is answered.
package load

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Load is what is done to a system.
type Load struct {
	Clients int
	// Warmup is not counted, Duration is.
	Warmup, Duration time.Duration
	// Do is one operation, the n-th of client.
	Do func(ctx context.Context, client, n int) error
}

// Result is what came of it.
type Result struct {
	Operations int
	// PerSecond is the throughput of the counted time.
	PerSecond float64
	P50, P99  time.Duration
}

// Run drives the load; the first error ends it.
func (l Load) Run(ctx context.Context) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, l.Warmup+l.Duration+time.Minute)
	defer cancel()
	begin := time.Now().Add(l.Warmup)
	end := begin.Add(l.Duration)
	took := make([][]time.Duration, l.Clients)
	failed := make([]error, l.Clients)
	var clients sync.WaitGroup
	for c := range l.Clients {
		clients.Go(func() {
			for n := 0; ; n++ {
				start := time.Now()
				if start.After(end) {
					return
				}
				if err := l.Do(ctx, c, n); err != nil {
					failed[c] = fmt.Errorf("client %d, operation %d: %w", c, n, err)
					cancel()
					return
				}
				if done := time.Now(); done.After(begin) && done.Before(end) {
					took[c] = append(took[c], done.Sub(start))
				}
			}
		})
	}
	clients.Wait()
	for _, err := range failed {
		if err != nil && !errors.Is(err, context.Canceled) {
			return Result{}, err
		}
	}
	return summary(slices.Concat(took...), l.Duration), errors.Join(failed...)
}

func summary(took []time.Duration, duration time.Duration) Result {
	slices.Sort(took)
	return Result{
		Operations: len(took), PerSecond: float64(len(took)) / duration.Seconds(),
		P50: Quantile(took, 0.5), P99: Quantile(took, 0.99),
	}
}

// Quantile of sorted durations; 0 if there are none.
func Quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}
