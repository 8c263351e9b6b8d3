package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"tripod.dev/tripod/test/bench/load"
	"tripod.dev/tripod/test/bench/report"
	"tripod.dev/tripod/test/freeport"
)

// way is something that is measured beside something else.
type way struct {
	name    string
	measure func(ctx context.Context) (float64, error)
}

// Name implements report.Bench.
func (w way) Name() string { return w.name }

// run measures a row on two ways.
func (c Config) run(ctx context.Context, name, unit string, better report.Better, ours, peer way) error {
	row := report.Measured[way]{Name: name, Unit: unit, Better: better,
		Measure: func(ctx context.Context, on way) (float64, error) { return on.measure(ctx) }}
	return row.Run(ctx, c.Plan, ours, peer)
}

// manyAgents of the rows that are about many.
const manyAgents = 1000

// tunnels measures the rows of the tunnel alone: the member's end here, the agents in
// another process.
func (c Config) tunnels(ctx context.Context) (err error) {
	e, err := newEnd(filepath.Join(c.Folder, "tunnel"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	if slices.ContainsFunc([]string{rowBandwidth, rowBandwidthProxy, rowStalled, rowBandwidthPeer, rowStalledPeer}, c.Wants) {
		if err := c.oneTunnel(ctx, e); err != nil {
			return err
		}
	}
	if slices.ContainsFunc([]string{rowIdle, rowIdleAgent, rowReconnect, rowReturn}, c.Wants) {
		return c.manyTunnels(ctx, e)
	}
	return nil
}

func (c Config) oneTunnel(ctx context.Context, e *end) error {
	ports, err := freeport.Find(2)
	if err != nil {
		return err
	}
	direct, proxy := freeport.Address(ports[0]), freeport.Address(ports[1])
	stop, err := e.far(c.Self, 1, false, direct, proxy)
	if err != nil {
		return err
	}
	defer stop()
	if err := e.awaitTunnels(ctx, 1); err != nil {
		return err
	}
	through, beside := e.through(), e.direct()
	defer through.CloseIdleConnections()
	defer beside.CloseIdleConnections()
	flood := func(name string, by *http.Client, base string) way {
		return way{name, func(ctx context.Context) (float64, error) { return c.bandwidth(ctx, by, base) }}
	}
	ours := flood("tripod", through, "http://cluster-0000")
	for row, peer := range map[string]way{
		rowBandwidth:      flood("direct TLS", beside, "https://"+direct),
		rowBandwidthProxy: flood("httputil.ReverseProxy over TLS", beside, "https://"+proxy),
	} {
		if !c.Wants(row) {
			continue
		}
		if err := c.run(ctx, row, "MB/s", report.Higher, ours, peer); err != nil {
			return err
		}
	}
	if err := c.besideRemotedialer(ctx, e, through); err != nil {
		return err
	}
	if !c.Wants(rowStalled) {
		return nil
	}
	return c.run(ctx, rowStalled, "µs", report.Lower,
		way{"tripod", func(ctx context.Context) (float64, error) { return c.stalled(ctx, through) }},
		way{"tripod without a stalled stream", func(ctx context.Context) (float64, error) { return c.others(ctx, through) }})
}

// bandwidth of one answer that is read as fast as it comes, in megabytes a second.
func (c Config) bandwidth(ctx context.Context, client *http.Client, base string) (float64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	body, err := get(ctx, client, fmt.Sprintf("%s/flood?n=%d", base, int64(1)<<40))
	if err != nil {
		return 0, err
	}
	defer func() { _ = body.Close() }()
	buffer := make([]byte, 256<<10)
	var read int64
	start := time.Now()
	for time.Since(start) < c.Duration {
		n, err := body.Read(buffer)
		if err != nil {
			return 0, fmt.Errorf("read: %w", err)
		}
		read += int64(n)
	}
	return float64(read) / 1e6 / time.Since(start).Seconds(), nil
}

func get(ctx context.Context, client *http.Client, url string) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(io.LimitReader(response.Body, 500)) // the code alone is not enough
		_ = response.Body.Close()
		return nil, fmt.Errorf("GET %s: %s: %s", url, response.Status, said)
	}
	return response.Body, nil
}

// others is the 99th percentile of sixteen clients' small requests, in µs.
func (c Config) others(ctx context.Context, client *http.Client) (float64, error) {
	r, err := load.Load{Clients: 16, Warmup: c.Duration / 3, Duration: c.Duration, Do: func(ctx context.Context, _, _ int) error {
		return drain(get(ctx, client, "http://cluster-0000/echo"))
	}}.Run(ctx)
	return float64(r.P99.Nanoseconds()) / 1000, err
}

func drain(body io.ReadCloser, err error) error {
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, body)
	return errors.Join(err, body.Close())
}

// stalled is others beside an answer of which nothing is read.
func (c Config) stalled(ctx context.Context, client *http.Client) (float64, error) {
	stalling, cancel := context.WithCancel(ctx)
	defer cancel()
	body, err := get(stalling, client, fmt.Sprintf("http://cluster-0000/flood?n=%d", int64(1)<<40))
	if err != nil {
		return 0, err
	}
	defer func() { _ = body.Close() }()
	return c.others(ctx, client)
}

func (c Config) manyTunnels(ctx context.Context, e *end) error {
	if c.Wants(rowIdle) {
		if err := c.idle(ctx, e, rowIdle, false); err != nil {
			return err
		}
	}
	if c.Wants(rowIdleAgent) {
		if err := c.idle(ctx, e, rowIdleAgent, true); err != nil {
			return err
		}
	}
	if c.Wants(rowReconnect) || c.Wants(rowReturn) {
		return c.reconnects(ctx, e)
	}
	return nil
}

// many starts the agents and waits until both members have all of them.
func (c Config) many(ctx context.Context, e *end, sessions bool) (stop func(), err error) {
	stop, err = e.far(c.Self, manyAgents, sessions, "", "")
	if err != nil {
		return nil, err
	}
	for _, member := range []*end{e, e.other} {
		await := member.awaitTunnels
		if sessions {
			await = member.awaitAgents
		}
		if err := await(ctx, manyAgents); err != nil {
			stop()
			return nil, err
		}
	}
	return stop, nil
}

func (c Config) idle(ctx context.Context, e *end, row string, sessions bool) error {
	before := inUse()
	stop, err := c.many(ctx, e, sessions)
	if err != nil {
		return err
	}
	defer stop()
	each := float64(inUse()-before) / (2 * manyAgents) // both members are here
	return c.run(ctx, row, "B", report.Lower, way{"tripod", func(context.Context) (float64, error) { return each, nil }},
		way{"TLS connections alone", func(ctx context.Context) (float64, error) { return e.plain(ctx, manyAgents, true) }})
}

func (c Config) reconnects(ctx context.Context, e *end) error {
	stop, err := c.many(ctx, e, true)
	if err != nil {
		return err
	}
	defer stop()
	for row, away := range map[string]time.Duration{rowReconnect: 0, rowReturn: 10 * time.Second} {
		if !c.Wants(row) {
			continue
		}
		err := c.run(ctx, row, "s", report.Lower,
			way{"tripod", func(ctx context.Context) (float64, error) { return e.restart(ctx, manyAgents, away) }},
			way{"TLS handshakes alone, all at once", func(ctx context.Context) (float64, error) { return e.plain(ctx, manyAgents, false) }})
		if err != nil {
			return err
		}
	}
	return nil
}

// inUse is what this process holds, in bytes.
func inUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// restart is how long after the member listens again, having been away, all agents have
// a session and a tunnel, in seconds.
func (e *end) restart(ctx context.Context, n int, away time.Duration) (float64, error) {
	if err := e.stop(); err != nil {
		return 0, err
	}
	select {
	case <-time.After(away):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if err := e.start(e.address); err != nil {
		return 0, err
	}
	start := time.Now()
	err := e.awaitAgents(ctx, n)
	return time.Since(start).Seconds(), err
}

// plain makes n TLS connections within this process and says how many bytes an end takes,
// or else how many seconds all took.
func (e *end) plain(ctx context.Context, n int, memory bool) (float64, error) {
	config := e.tls.Clone()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		return 0, fmt.Errorf("listen: %w", err)
	}
	defer func() { _ = listener.Close() }()
	before := inUse()
	var all sync.WaitGroup
	conns, problems := make(chan net.Conn, 2*n), make(chan error, 2*n)
	hold := func(conn net.Conn, err error) {
		if err == nil {
			err = conn.(*tls.Conn).HandshakeContext(ctx)
		}
		if err != nil {
			problems <- err
			return
		}
		conns <- conn
	}
	start := time.Now()
	client := e.tls.Clone()
	client.ServerName = "127.0.0.1"
	for range n {
		all.Go(func() {
			conn, err := listener.Accept()
			hold(conn, err)
		})
		all.Go(func() {
			d := tls.Dialer{Config: client}
			conn, err := d.DialContext(ctx, "tcp", listener.Addr().String())
			hold(conn, err)
		})
	}
	all.Wait()
	took, bytes := time.Since(start), inUse()-before
	close(conns)
	for conn := range conns {
		_ = conn.Close()
	}
	select {
	case err := <-problems:
		return 0, err
	default:
	}
	if memory {
		return float64(bytes) / float64(2*n), nil // both ends are here
	}
	return took.Seconds(), nil
}
