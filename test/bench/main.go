// Command bench measures Tripod beside its peers, in turn in one run, and prints
// one JSON object a line.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"tripod.dev/tripod/test/bench/store"
	"tripod.dev/tripod/test/storefleet"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use: "bench", Short: "Measure Tripod beside its peers", SilenceUsage: true, SilenceErrors: true,
	}
	root.AddCommand(benchStore())
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

func benchStore() *cobra.Command {
	c := store.Config{Progress: os.Stderr, Duration: 3 * time.Second, Rounds: 3, Kills: 50}
	only := ""
	command := &cobra.Command{
		Use: "store", Short: "The hub's store beside etcd", Args: cobra.NoArgs,
		Long: "Runs members of the hub's store and of etcd as processes on loopback, with mutual TLS and synced writes,\n" +
			"and drives both in turn. Rows go to standard output, progress to standard error.",
		Example: "  bench store --only 'put/3/c=16/'",
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			c.Out = cmd.OutOrStdout()
			if c.Only, err = regexp.Compile(only); err != nil {
				return fmt.Errorf("--only is not a regular expression: %w", err)
			}
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find own program: %w", err)
			}
			c.Ours, c.Peer = storefleet.Ours{Program: filepath.Join(filepath.Dir(self), "storemember")}, storefleet.Etcd{Program: filepath.Join(filepath.Dir(self), "kubernode")}
			if c.Folder == "" {
				if c.Folder, err = os.MkdirTemp("", "tripod-bench-"); err != nil {
					return fmt.Errorf("make a folder for the data: %w", err)
				}
				defer func() { _ = os.RemoveAll(c.Folder) }()
			}
			return store.Run(cmd.Context(), c)
		},
	}
	command.Flags().StringVar(&only, "only", only, "run only the rows whose name matches this regular expression")
	command.Flags().StringVar(&c.Folder, "folder", c.Folder, "where the members keep their data; default: a temporary folder, removed at the end")
	command.Flags().DurationVar(&c.Duration, "duration", c.Duration, "how long a row is measured in each round")
	command.Flags().IntVar(&c.Rounds, "rounds", c.Rounds, "how often each row is measured; the median counts")
	command.Flags().IntVar(&c.Kills, "kills", c.Kills, "how often the leader is killed for store/leader-kill-gap/p99")
	return command
}
