package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"github.com/spf13/cobra"

	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/etcdapi"
	"tripod.dev/tripod/test/bench/fleet"
)

// member runs the hub's store alone, as the hub would.
func member() *cobra.Command {
	return &cobra.Command{
		Use: "member CONFIG", Short: "Run one member of our store (the benchmark starts these)", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, arguments []string) error {
			config, identity, err := readMember(arguments[0])
			if err != nil {
				return err
			}
			return runMember(cmd.Context(), config, identity)
		},
	}
}

func readMember(file string) (c fleet.MemberConfig, identity *tls.Config, err error) {
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

func runMember(ctx context.Context, c fleet.MemberConfig, identity *tls.Config) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	s, err := store.New(store.Config{Name: c.Name, DataDir: c.DataDir, Members: c.Members, Bootstrap: c.Bootstrap, TLS: identity, Logger: log})
	if err != nil {
		return err
	}
	storing, stop := context.WithCancel(ctx)
	defer stop()
	api, err := etcdapi.New(s, etcdapi.Config{Listen: []string{c.Client}, TLS: identity, Logger: log})
	if err != nil {
		stop()
		return errors.Join(err, s.Run(storing))
	}
	var served error
	var serving sync.WaitGroup
	serving.Go(func() {
		served = api.Run(storing)
		stop()
	})
	stored := s.Run(storing)
	stop()
	serving.Wait()
	return errors.Join(served, stored)
}
