// Command tripod-guard is PID 1 of a database's container: it runs the database
// as its child and kills it when the proof of the primary role runs out.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"tripod.dev/tripod/failover/guard"
	"tripod.dev/tripod/failover/guard/postgresql"
	"tripod.dev/tripod/failover/guard/process"
	"tripod.dev/tripod/failover/guard/volume"
)

var version = "dev"

const help = `tripod-guard runs a database as its child and can always stop it.

It is PID 1 of the database's container: an init container copies it there with
"tripod-guard install", and "tripod-guard run" is the container's command. It
asks the cluster's agents for the proof of the role each tick, and kills the
database in time when the proof runs out. deploy/ledger/20-database.yaml shows a
StatefulSet with it.`

func main() {
	root := &cobra.Command{
		Use: "tripod-guard", Short: "Runs a database and can always stop it", Long: help,
		Version: version, SilenceUsage: true, SilenceErrors: true,
	}
	root.AddCommand(installCommand(), runCommand(), drillCommand())
	if err := root.Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "tripod-guard:", err)
		os.Exit(1)
	}
}

type flags struct {
	guard                     guard.Config
	engine                    postgresql.Config
	volume, credentials, user string
}

func runCommand() *cobra.Command {
	var f flags
	c := &cobra.Command{
		Use: "run", Short: "Guard a PostgreSQL", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			return run(ctx, f)
		},
	}
	fs := c.Flags()
	fs.StringSliceVar(&f.guard.Agents, "agents", []string{"tripod-agent-replicas.tripod-system.svc:7443"}, "HOST:PORT of every replica of the agent; names are resolved again and again")
	fs.StringSliceVar(&f.guard.Hubs, "hubs", nil, "HOST:PORT of hub members to ask while no agent answers, beside those that the agent writes to the credentials")
	fs.StringVar(&f.guard.Address, "address", os.Getenv("POD_IP"), "address where pods of this cluster reach the database; the port is added when missing")
	fs.StringVar(&f.guard.Pod, "pod", os.Getenv("HOSTNAME"), "this pod's name")
	fs.DurationVar(&f.guard.Tick, "tick", time.Second, "how often a proof is asked for")
	fs.DurationVar(&f.guard.Margin, "margin", 500*time.Millisecond, "how long before its deadline the database is killed")
	fs.StringVar(&f.credentials, "credentials", "/etc/tripod-guard", "folder of tls.crt, tls.key, ca.crt and hubs, as the agent makes them")
	fs.StringVar(&f.volume, "volume", "/var/lib/tripod-db", "folder of the copy and of the guard's memory")
	fs.StringVar(&f.engine.Secrets, "secrets", "/etc/tripod-db", "folder of the database's credentials")
	fs.StringVar(&f.engine.Programs, "programs", "/usr/lib/postgresql/15/bin", "folder of PostgreSQL's programs")
	fs.IntVar(&f.engine.Port, "port", 5432, "port of the database")
	fs.StringVar(&f.user, "user", "postgres", "user the database runs as when the guard is root")
	return c
}

func run(ctx context.Context, f flags) error {
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	credentials := guard.Credentials{
		Certificate: filepath.Join(f.credentials, "tls.crt"),
		Key:         filepath.Join(f.credentials, "tls.key"),
		Authority:   filepath.Join(f.credentials, "ca.crt"),
		Hubs:        filepath.Join(f.credentials, guard.HubsFile),
	}
	_, _, identity, err := credentials.Load()
	if err != nil {
		return fmt.Errorf("%w; mount the Secret that the agent makes for the dataset at %s", err, f.credentials)
	}
	if f.guard.Address != "" && !strings.Contains(f.guard.Address, ":") {
		f.guard.Address += ":" + strconv.Itoa(f.engine.Port)
	}
	f.guard.Identity, f.guard.Credentials, f.guard.Version, f.guard.Log = identity, credentials, version, log
	if f.engine.User, err = lowerUser(f.user); err != nil {
		return err
	}
	// 1. The volume first: its lock says that no other guard runs this copy.
	vol, err := volume.Open(f.volume)
	if err != nil {
		return err
	}
	defer vol.Close()
	processes, err := process.NewSupervisor()
	if err != nil {
		return err
	}
	engine, copies, err := postgresql.New(f.engine, vol, processes)
	if err != nil {
		return err
	}
	g, err := guard.New(f.guard, guard.Parts{
		Engine: engine, Copier: copies, Processes: processes, Store: vol, Probe: engine.Listening,
	})
	if err != nil {
		return err
	}
	// 2. The supervisor outlives the guard: it forks and reaps for the orderly stop.
	supervising, stopSupervising := context.WithCancel(context.WithoutCancel(ctx))
	defer stopSupervising()
	var group errgroup.Group
	group.Go(func() error { return processes.Run(supervising) })
	group.Go(func() error {
		defer stopSupervising()
		return g.Run(ctx)
	})
	log.Info("guard started", "dataset", identity.Key(), "cluster", identity.Cluster, "init", os.Getpid() == 1)
	err = group.Wait()
	engine.Wait()
	return err
}
