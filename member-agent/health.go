package memberagent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// health serves /healthz, which is well while the process is, /readyz, which
// says what is missing, also while it is ready in part, and /metrics.
type health struct {
	listen string
	ready  func() error
	// lacking is what a ready agent does without; empty for nothing.
	lacking func() string
	gauges  *prometheus.Registry
}

func newHealth(listen string, ready func() error, lacking func() string, sessions, tunnels, active func() float64, leaseSeconds func() float64) *health {
	registry := prometheus.NewRegistry()
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "tripod", Subsystem: "agent", Name: name, Help: help}, value)
	}
	registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		gauge("sessions", "Hub members with whom a session is open.", sessions),
		gauge("tunnels", "Hub members to whom a tunnel is open.", tunnels),
		gauge("active", "1 on the replica that carries out effects.", active),
		gauge("lease_remaining_seconds", "How long the roles of the last grant still hold; negative when they have ended.", leaseSeconds),
	)
	return &health{listen: listen, ready: ready, lacking: lacking, gauges: registry}
}

func (h *health) run(ctx context.Context) error {
	if h.listen == "" {
		<-ctx.Done()
		return ctx.Err()
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := h.ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		if lacking := h.lacking(); lacking != "" {
			_, _ = fmt.Fprintln(w, "ok, in part: "+lacking)
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(h.gauges, promhttp.HandlerOpts{}))
	listener, err := net.Listen("tcp", h.listen)
	if err != nil {
		return fmt.Errorf("serve health: %w", err)
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve health: %w", err)
	}
	return ctx.Err()
}
