package load

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

func TestEveryClientWaitsForItsAnswer(t *testing.T) {
	var inside, most atomic.Int64
	r, err := Load{Clients: 4, Duration: 50 * time.Millisecond, Do: func(context.Context, int, int) error {
		most.Store(max(most.Load(), inside.Add(1)))
		defer inside.Add(-1)
		<-time.After(time.Millisecond)
		return nil
	}}.Run(t.Context())
	if err != nil || r.Operations == 0 || most.Load() > 4 {
		t.Fatalf("%+v, %d at once, error %v", r, most.Load(), err)
	}
}

func TestAnErrorEndsTheLoadAndNamesTheOperation(t *testing.T) {
	broken := errors.New("broken")
	_, err := Load{Clients: 3, Duration: time.Hour, Do: func(ctx context.Context, client, n int) error {
		if client == 1 && n == 2 {
			return broken
		}
		return ctx.Err()
	}}.Run(t.Context())
	if !errors.Is(err, broken) || err.Error() != "client 1, operation 2: broken" {
		t.Fatal(err)
	}
}

func TestQuantile(t *testing.T) {
	d := []time.Duration{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	if Quantile(d, 0.5) != 6 || Quantile(d, 0.99) != 10 || Quantile(nil, 0.5) != 0 {
		t.Fatal(Quantile(d, 0.5), Quantile(d, 0.99))
	}
}
