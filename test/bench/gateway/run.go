// Package gateway measures the gateway beside the API server behind it, a bare
// httputil.ReverseProxy and `kubectl proxy`, and the tunnel beside TLS alone: real
// servers and agents' ends in processes of their own, with authentication, RBAC and
// audit on.
package gateway

import (
	"context"
	"errors"
	"slices"
	"time"

	"tripod.dev/tripod/test/bench/report"
)

// Config says what is measured and how long.
type Config struct {
	report.Plan
	// Self is this program, BinDir holds tripod-hub and kubernode.
	Self, BinDir string
	// Folder takes the servers' data.
	Folder string
	// Duration of one measurement.
	Duration time.Duration
}

const (
	rowDirectP50  = "gateway/added-latency/direct/p50"
	rowDirectP99  = "gateway/added-latency/direct/p99"
	rowTunnelP50  = "gateway/added-latency/tunnel/p50"
	rowTunnelP99  = "gateway/added-latency/tunnel/p99"
	rowThroughput = "gateway/throughput"
	rowCPUDirect  = "gateway/cpu/direct"
	rowCPUTunnel  = "gateway/cpu/tunnel"
	rowBandwidth  = "tunnel/bandwidth"
	// rowBandwidthProxy is beside what has the tunnel's second hop, and no tunnel.
	rowBandwidthProxy = "tunnel/bandwidth/proxy"
	rowStalled        = "tunnel/stalled-stream/p99"
	rowBandwidthPeer  = "tunnel/bandwidth/remotedialer"
	rowStalledPeer    = "tunnel/stalled-stream/p99/remotedialer"
	rowIdle           = "tunnel/idle-agent-memory"
	rowIdleAgent      = "tunnel/idle-agent-memory/with-session"
	rowReconnect      = "tunnel/reconnect/1000"
	rowReturn         = "tunnel/reconnect/1000/away-10s"
)

// Run measures all rows that are asked for.
func Run(ctx context.Context, c Config) error {
	if c.Duration <= 0 || c.Rounds < 1 {
		return errors.New("bench gateway: duration and rounds must be positive")
	}
	wants := func(names ...string) bool { return slices.ContainsFunc(names, c.Wants) }
	if wants(rowDirectP50, rowDirectP99, rowTunnelP50, rowTunnelP99, rowThroughput, rowCPUDirect, rowCPUTunnel) {
		if err := c.doors(ctx); err != nil {
			return err
		}
	}
	if wants(rowBandwidth, rowStalled, rowBandwidthPeer, rowStalledPeer, rowIdle, rowIdleAgent, rowReconnect, rowReturn) {
		return c.tunnels(ctx)
	}
	return nil
}
