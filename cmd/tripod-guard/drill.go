package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"tripod.dev/tripod/failover/guard/postgresql"
	"tripod.dev/tripod/failover/guard/process"
	"tripod.dev/tripod/failover/guard/volume"
)

func drillCommand() *cobra.Command {
	cfg := postgresql.Config{Apart: true}
	var source, dir, result, user string
	var timeout time.Duration
	var options map[string]string
	c := &cobra.Command{
		Use: "drill", Short: "Copy a standby, promote and probe the copy apart from production, and tell what was measured",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			ctx, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			var err error
			if cfg.User, err = lowerUser(user); err != nil {
				return err
			}
			measured, err := drill(ctx, cfg, dir, source, options)
			text, _ := json.Marshal(measured) // plain numbers
			if err != nil {
				text = []byte(err.Error())
			}
			return errors.Join(err, os.WriteFile(result, text[:min(len(text), 4000)], 0o644))
		},
	}
	fs := c.Flags()
	fs.StringVar(&source, "source", "", "HOST:PORT of the standby")
	fs.StringVar(&dir, "volume", "/var/lib/tripod-drill", "an empty folder for the copy")
	fs.StringVar(&cfg.Secrets, "secrets", "/etc/tripod-db", "folder with database and replication-password")
	fs.StringVar(&cfg.Programs, "programs", "/usr/lib/postgresql/15/bin", "folder of PostgreSQL's programs")
	fs.IntVar(&cfg.Port, "port", 5433, "names the copy's socket; it listens on no network")
	fs.StringVar(&result, "result", "/dev/termination-log", "file for what was measured, or why nothing was")
	fs.StringVar(&user, "user", "postgres", "user the database runs as when this is root")
	fs.StringToStringVar(&options, "option", nil, "settings of the dataset, as max_connections=200")
	fs.DurationVar(&timeout, "timeout", 14*time.Minute, "the most that it may take")
	return c
}

func drill(ctx context.Context, cfg postgresql.Config, dir, source string, options map[string]string) (postgresql.Rehearsal, error) {
	var measured postgresql.Rehearsal
	vol, err := volume.Open(dir)
	if err != nil {
		return measured, err
	}
	defer vol.Close()
	processes, err := process.NewSupervisor()
	if err != nil {
		return measured, err
	}
	engine, copies, err := postgresql.New(cfg, vol, processes)
	if err != nil {
		return measured, err
	}
	// The supervisor kills what is left when the drill ends, however it does.
	supervising, stop := context.WithCancel(context.WithoutCancel(ctx))
	var group errgroup.Group
	group.Go(func() error { return processes.Run(supervising) })
	measured, err = postgresql.Rehearse(ctx, engine, copies, source, options)
	stop()
	err = errors.Join(err, group.Wait())
	engine.Wait()
	return measured, err
}
