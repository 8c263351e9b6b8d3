// Command bench measures Tripod beside its peers, in turn in one run, and prints
// one JSON object a line.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"tripod.dev/tripod/test/bench/api"
	"tripod.dev/tripod/test/bench/gateway"
	"tripod.dev/tripod/test/bench/report"
	"tripod.dev/tripod/test/bench/store"
	"tripod.dev/tripod/test/storefleet"
)

// kineVersion is set by the linker.
var kineVersion = "unknown"

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use: "bench", Short: "Measure Tripod beside its peers", SilenceUsage: true, SilenceErrors: true,
	}
	root.AddCommand(benchStore(), benchGateway(), farEnd())
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

func benchStore() *cobra.Command {
	plan := report.Plan{Rounds: 3, Progress: os.Stderr}
	var only, folder string
	duration, kills := 3*time.Second, 50
	command := &cobra.Command{
		Use: "store", Short: "The hub's store beside etcd, and its Kubernetes API beside kube-apiserver", Args: cobra.NoArgs,
		Long: "Runs members of the hub's store and of etcd as processes on loopback, with mutual TLS and synced writes,\n" +
			"and drives both in turn; then a hub of one member beside a kube-apiserver with one etcd.\n" +
			"Rows go to standard output, progress to standard error.",
		Example: "  bench store --only 'put/3/c=16/'\n  bench store --only api/ --rounds 1",
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			rows := &lines{to: cmd.OutOrStdout()}
			plan.Out = rows
			if plan.Only, err = regexp.Compile(only); err != nil {
				return fmt.Errorf("--only is not a regular expression: %w", err)
			}
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find own program: %w", err)
			}
			bin := filepath.Dir(self)
			if folder == "" {
				if folder, err = os.MkdirTemp("", "tripod-bench-"); err != nil {
					return fmt.Errorf("make a folder for the data: %w", err)
				}
				defer func() { _ = os.RemoveAll(folder) }()
			}
			err = store.Run(cmd.Context(), store.Config{Plan: plan, Folder: folder, Duration: duration, Kills: kills,
				Ours: storefleet.Ours{Program: filepath.Join(bin, "storemember")}, Peer: storefleet.Etcd{Program: filepath.Join(bin, "kubernode")},
				Further: []store.Further{
					{Kind: storefleet.Kine{Program: filepath.Join(bin, "kine"), Version: kineVersion}, Members: 1, Rows: apiServersRows},
					{Kind: storefleet.Etcd{Program: filepath.Join(bin, "kubernode"), OnePort: true}, Members: 3, Rows: plainRows},
				}})
			if err != nil {
				return err
			}
			err = api.Run(cmd.Context(), api.Config{Plan: plan, BinDir: bin, Folder: folder, Duration: duration})
			if err == nil && rows.n == 0 {
				err = fmt.Errorf("no row matches %q", only)
			}
			return err
		},
	}
	command.Flags().StringVar(&only, "only", only, "run only the rows whose name matches this regular expression")
	command.Flags().StringVar(&folder, "folder", folder, "where the members keep their data; default: a temporary folder, removed at the end")
	command.Flags().DurationVar(&duration, "duration", duration, "how long a row is measured in each round")
	command.Flags().IntVar(&plan.Rounds, "rounds", plan.Rounds, "how often each row is measured; the median counts")
	command.Flags().IntVar(&kills, "kills", kills, "how often the leader is killed for store/leader-kill-gap/p99")
	return command
}

var (
	// apiServersRows are what an API server asks of its store: no plain put.
	apiServersRows = regexp.MustCompile(`^store/(txn/1/c=(1|16|256)/|get-linearizable/1/c=(1|16|256)/|range/1/)`)
	// plainRows are those in which it matters how etcd serves gRPC.
	plainRows = regexp.MustCompile(`^store/(put|txn|get-linearizable|get-serializable)/3/c=(1|256)/256B`)
)

func benchGateway() *cobra.Command {
	plan := report.Plan{Rounds: 3, Progress: os.Stderr}
	var only, folder string
	duration := 3 * time.Second
	command := &cobra.Command{
		Use: "gateway", Short: "The gateway beside the API server behind it, a bare reverse proxy and kubectl proxy; the tunnel beside TLS", Args: cobra.NoArgs,
		Example: "  bench gateway --only tunnel/ --rounds 1",
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			rows := &lines{to: cmd.OutOrStdout()}
			plan.Out = rows
			if plan.Only, err = regexp.Compile(only); err != nil {
				return fmt.Errorf("--only is not a regular expression: %w", err)
			}
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find own program: %w", err)
			}
			if folder == "" {
				if folder, err = os.MkdirTemp("", "tripod-bench-"); err != nil {
					return fmt.Errorf("make a folder for the data: %w", err)
				}
				defer func() { _ = os.RemoveAll(folder) }()
			}
			err = gateway.Run(cmd.Context(), gateway.Config{Plan: plan, Self: self, BinDir: filepath.Dir(self), Folder: folder, Duration: duration})
			if err == nil && rows.n == 0 {
				err = fmt.Errorf("no row matches %q", only)
			}
			return err
		},
	}
	command.Flags().StringVar(&only, "only", only, "run only the rows whose name matches this regular expression")
	command.Flags().StringVar(&folder, "folder", folder, "where the servers keep their data; default: a temporary folder, removed at the end")
	command.Flags().DurationVar(&duration, "duration", duration, "how long a row is measured in each round")
	command.Flags().IntVar(&plan.Rounds, "rounds", plan.Rounds, "how often each row is measured; the median counts")
	return command
}

// farEnd is a process of the gateway's benchmark, not for people.
func farEnd() *cobra.Command {
	return &cobra.Command{Use: "far CONFIG", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return gateway.RunFar(cmd.Context(), args[0]) }}
}

// lines counts what is printed: one write a row.
type lines struct {
	to io.Writer
	n  int
}

func (l *lines) Write(line []byte) (int, error) {
	l.n++
	return l.to.Write(line)
}
