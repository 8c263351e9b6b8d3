// Command robustness holds the hub's store to its promises while machines, disks
// and networks fail. See DESIGN.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"tripod.dev/tripod/test/robustness/model"
	"tripod.dev/tripod/test/robustness/validate"
	"tripod.dev/tripod/test/robustness/wall"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{Use: "robustness", Short: "Faults against the hub's store, and the check of what clients saw", SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(runCommand(), programCommand(), bugsCommand(), damageCommand(), checkCommand())
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "robustness:", err)
		return 1
	}
	return 0
}

// settings are what a person may choose.
type settings struct {
	program, folder string
	duration        time.Duration
	seed            uint64
	members, faults int
	// clocks: the program's wall clock can be moved.
	clocks bool
}

func runCommand() *cobra.Command {
	s := settings{duration: time.Minute, faults: 6}
	c := &cobra.Command{
		Use: "run", Short: "Play rounds for as long as it is told", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := s.complete()
			if err != nil {
				return err
			}
			return rounds(cmd.Context(), s, cmd.OutOrStdout())
		},
	}
	c.Flags().StringVar(&s.program, "member", s.program, "the program of a member; default: storemember beside this program")
	c.Flags().StringVar(&s.folder, "folder", s.folder, "where rounds keep their data; default: a temporary folder, of which only bad rounds stay")
	c.Flags().DurationVar(&s.duration, "duration", s.duration, "no round begins after that; at least one is played")
	c.Flags().Uint64Var(&s.seed, "seed", s.seed, "the seed of the first round, from which its faults follow; 0: by chance")
	c.Flags().IntVar(&s.members, "members", s.members, "how many members; 0: three or five, by the seed")
	c.Flags().IntVar(&s.faults, "faults", s.faults, "faults in a round")
	c.Flags().BoolVar(&s.clocks, "clocks", s.clocks, "move wall clocks too; the program must be one of `robustness program`")
	return c
}

func (s settings) complete() (settings, error) {
	if s.program == "" {
		self, err := os.Executable()
		if err != nil {
			return s, fmt.Errorf("find own program: %w", err)
		}
		s.program = filepath.Join(filepath.Dir(self), "storemember")
	}
	if s.seed == 0 {
		s.seed = rand.Uint64()
	}
	var err error
	if s.folder == "" {
		// Short, because it holds unix sockets.
		s.folder, err = os.MkdirTemp("", "robust-")
	} else {
		err = os.MkdirAll(s.folder, 0o700)
	}
	if err != nil {
		return s, fmt.Errorf("make a folder for the data: %w", err)
	}
	return s, nil
}

func checkCommand() *cobra.Command {
	return &cobra.Command{
		Use: "check HISTORY", Short: "Check a history that was kept, again", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := os.ReadFile(args[0])
			if err != nil {
				return fmt.Errorf("read the history: %w", err)
			}
			var h model.History
			if err := json.Unmarshal(text, &h); err != nil {
				return fmt.Errorf("read %s: %w", args[0], err)
			}
			violations := validate.Check(&h, searching)
			for _, v := range violations {
				fmt.Fprintln(cmd.OutOrStdout(), v)
			}
			if len(violations) > 0 {
				return errors.New("the history is not one of a correct store")
			}
			return nil
		},
	}
}

// programCommand builds what --clocks needs.
func programCommand() *cobra.Command {
	var root, out string
	c := &cobra.Command{
		Use: "program", Short: "Build the program of a member whose wall clock can be moved", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var paths [2]string
			for i, path := range []string{root, out} {
				var err error
				if paths[i], err = filepath.Abs(path); err != nil {
					return fmt.Errorf("find %s: %w", path, err)
				}
			}
			return wall.Build(cmd.Context(), paths[0], paths[1], nil, true)
		},
	}
	c.Flags().StringVar(&root, "root", ".", "the top of the repository")
	c.Flags().StringVar(&out, "out", "storemember-clocks", "the program to write")
	return c
}
