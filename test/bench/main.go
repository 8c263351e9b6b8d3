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

// measurement is what every benchmark is told.
type measurement struct {
	plan     report.Plan
	folder   string
	duration time.Duration
	// self is this program; its peers are beside it.
	self, bin string
}

// benchmark completes a command that measures: its flags, and a folder for the data
// that goes with it. data says whose data that is.
func benchmark(command *cobra.Command, data string, run func(context.Context, measurement) error) *cobra.Command {
	m := measurement{plan: report.Plan{Rounds: 3, Progress: os.Stderr}, duration: 3 * time.Second}
	only := ""
	command.Args = cobra.NoArgs
	command.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		rows := &lines{to: cmd.OutOrStdout()}
		m.plan.Out = rows
		if m.plan.Only, err = regexp.Compile(only); err != nil {
			return fmt.Errorf("--only is not a regular expression: %w", err)
		}
		if m.self, err = os.Executable(); err != nil {
			return fmt.Errorf("find own program: %w", err)
		}
		m.bin = filepath.Dir(m.self)
		if m.folder == "" {
			if m.folder, err = os.MkdirTemp("", "tripod-bench-"); err != nil {
				return fmt.Errorf("make a folder for the data: %w", err)
			}
			defer func() { _ = os.RemoveAll(m.folder) }()
		}
		err = run(cmd.Context(), m)
		if err == nil && rows.n == 0 {
			err = fmt.Errorf("no row matches %q", only)
		}
		return err
	}
	command.Flags().StringVar(&only, "only", only, "run only the rows whose name matches this regular expression")
	command.Flags().StringVar(&m.folder, "folder", m.folder, "where "+data+" keep their data; default: a temporary folder, removed at the end")
	command.Flags().DurationVar(&m.duration, "duration", m.duration, "how long a row is measured in each round")
	command.Flags().IntVar(&m.plan.Rounds, "rounds", m.plan.Rounds, "how often each row is measured; the median counts")
	return command
}

func benchStore() *cobra.Command {
	kills := 50
	command := benchmark(&cobra.Command{
		Use: "store", Short: "The hub's store beside etcd, and its Kubernetes API beside kube-apiserver",
		Long: "Runs members of the hub's store and of etcd as processes on loopback, with mutual TLS and synced writes,\n" +
			"and drives both in turn; then a hub of one member beside a kube-apiserver with one etcd.\n" +
			"Rows go to standard output, progress to standard error.",
		Example: "  bench store --only 'put/3/c=16/'\n  bench store --only api/ --rounds 1",
	}, "the members", func(ctx context.Context, m measurement) error {
		err := store.Run(ctx, store.Config{Plan: m.plan, Folder: m.folder, Duration: m.duration, Kills: kills,
			Ours: storefleet.Ours{Program: filepath.Join(m.bin, "storemember")}, Peer: storefleet.Etcd{Program: filepath.Join(m.bin, "kubernode")},
			Small: storefleet.Kine{Program: filepath.Join(m.bin, "kine"), Version: kineVersion}})
		if err != nil {
			return err
		}
		return api.Run(ctx, api.Config{Plan: m.plan, BinDir: m.bin, Folder: m.folder, Duration: m.duration})
	})
	command.Flags().IntVar(&kills, "kills", kills, "how often the leader is killed for store/leader-kill-gap/p99")
	return command
}

func benchGateway() *cobra.Command {
	return benchmark(&cobra.Command{
		Use: "gateway", Short: "The gateway beside the API server behind it, a bare reverse proxy and kubectl proxy; the tunnel beside TLS",
		Example: "  bench gateway --only tunnel/ --rounds 1",
	}, "the servers", func(ctx context.Context, m measurement) error {
		return gateway.Run(ctx, gateway.Config{Plan: m.plan, Self: m.self, BinDir: m.bin, Folder: m.folder, Duration: m.duration})
	})
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
