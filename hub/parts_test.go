package hub

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRunPartsStopsInReverseOrder(t *testing.T) {
	var mu sync.Mutex
	var stopped []string
	ready := make(chan struct{}, 3)
	block := func(name string) part {
		return part{name, func(ctx context.Context) error {
			ready <- struct{}{}
			<-ctx.Done()
			mu.Lock()
			defer mu.Unlock()
			stopped = append(stopped, name)
			return nil
		}}
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for range 3 {
			<-ready
		}
		cancel()
	}()
	if err := runParts(ctx, []part{block("store"), block("api"), block("leader")}, slog.Default()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"leader", "api", "store"}, stopped); diff != "" {
		t.Errorf("order of stopping (-want +got):\n%s", diff)
	}
}

func TestRunPartsEndsWithTheFirstFailure(t *testing.T) {
	broken := errors.New("disk on fire")
	err := runParts(t.Context(), []part{
		{"store", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }},
		{"api", func(context.Context) error { return broken }},
	}, slog.Default())
	if !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), "api: ") {
		t.Errorf("got %v, want the failure of api", err)
	}
}

func TestRunPartsTakesAnEarlyEndForAFailure(t *testing.T) {
	err := runParts(t.Context(), []part{{"view", func(context.Context) error { return nil }}}, slog.Default())
	if err == nil || !strings.Contains(err.Error(), "view") {
		t.Errorf("got %v, want an error that names view", err)
	}
}
