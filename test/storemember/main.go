// Command storemember runs the hub's store and its etcd API alone, for benchmarks
// and the robustness suite.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/etcdapi"
	"tripod.dev/tripod/test/storefleet"
	"tripod.dev/tripod/test/storefleet/failpoint"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: storemember CONFIG (package storefleet writes it)")
		return 2
	}
	config, identity, err := readMember(os.Args[1])
	if err == nil {
		err = runMember(ctx, config, identity)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "storemember:", err)
		return 1
	}
	return 0
}

func readMember(file string) (c storefleet.MemberConfig, identity *tls.Config, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return c, nil, fmt.Errorf("read the member's configuration: %w", err)
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return c, nil, fmt.Errorf("read %s: %w", file, err)
	}
	pair, err := tls.LoadX509KeyPair(c.Pair+".crt", c.Pair+".key")
	if err != nil {
		return c, nil, fmt.Errorf("read the member's certificate: %w", err)
	}
	authority, err := os.ReadFile(c.Authority)
	if err != nil {
		return c, nil, fmt.Errorf("read the authority: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	return c, &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool, ClientCAs: pool}, nil
}

func runMember(ctx context.Context, c storefleet.MemberConfig, identity *tls.Config) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	storing, stop := context.WithCancel(ctx)
	var serving sync.WaitGroup
	defer serving.Wait()
	defer stop()
	var failpoints store.Failpoints
	if c.Control != "" {
		points := failpoint.New(c.Armed...)
		failpoints = points.Reach
		serving.Go(func() {
			if err := points.Serve(storing, c.Control); err != nil {
				log.Error("failpoints are not served", "error", err)
			}
		})
	}
	s, err := store.New(storeConfig(c, identity, failpoints, log))
	if err != nil {
		return err
	}
	api, err := etcdapi.New(s, etcdapi.Config{Listen: []string{c.Client}, TLS: identity, Logger: log, Fail: failpoints})
	if err != nil {
		stop()
		return errors.Join(err, s.Run(storing))
	}
	var served error
	serving.Go(func() {
		served = api.Run(storing)
		stop()
	})
	stored := s.Run(storing)
	stop()
	serving.Wait() // served is set
	return errors.Join(served, stored)
}

func storeConfig(c storefleet.MemberConfig, identity *tls.Config, failpoints store.Failpoints, log *slog.Logger) store.Config {
	t := c.Tuning
	config := store.Config{
		Name: c.Name, DataDir: c.DataDir, Members: c.Members, Bootstrap: c.Bootstrap, TLS: identity, Logger: log, Fail: failpoints,
		SnapshotThreshold: t.SnapshotThreshold, TrailingLogs: t.TrailingLogs, SnapshotInterval: t.SnapshotInterval,
		SegmentBytes: t.SegmentBytes, SpaceReserve: t.SpaceReserve,
		Version: c.Version, Understands: c.Understands,
	}
	if c.Routes != nil {
		var d net.Dialer
		config.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			if route, ok := c.Routes[address]; ok {
				address = route
			}
			return d.DialContext(ctx, "tcp", address)
		}
	}
	return config
}
