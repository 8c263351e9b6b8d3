package controller

import (
	"context"
	"log/slog"
	"testing"
	"time"
)

// BenchmarkATurnOverAHealthyFleet is what a leader does each tick while nothing
// happens, over a thousand applications and a plan of them all.
func BenchmarkATurnOverAHealthyFleet(b *testing.B) {
	m := newMany(b, 1000)
	delete(m.lost, "north-1")
	for at, o := range m.reports {
		if at.Namespace == "north-1" {
			o.Acknowledges, o.Streaming, o.CaughtUp = []string{"north-2"}, []string{"north-2"}, []string{"north-2"}
		}
	}
	c := m.controller(b)
	c.log = slog.New(slog.DiscardHandler)
	ctx := context.Background()
	for again := true; again; {
		var err error
		if again, err = c.turn(ctx); err != nil {
			b.Fatal(err)
		}
	}
	for kind, careful := range map[string]time.Duration{"whole": 0, "brief": time.Hour} {
		b.Run(kind, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.careful = careful
				if _, err := c.turn(ctx); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	c.sender.running.Wait()
}
