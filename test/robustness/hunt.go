package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"tripod.dev/tripod/test/robustness/bugs"
)

// hunt looks for planted bugs.
type hunt struct {
	settings
	root, only string
	patience   time.Duration
}

func bugsCommand() *cobra.Command {
	h := hunt{settings: settings{faults: 5, seed: 1}, root: ".", patience: 5 * time.Minute}
	c := &cobra.Command{
		Use: "bugs", Short: "Plant bugs in the store, one by one, and see that each is found", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			h.program = "unused: every bug is a program of its own"
			if h.settings, err = h.complete(); err != nil {
				return err
			}
			defer func() { _ = os.RemoveAll(h.folder) }()
			return h.run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	c.Flags().StringVar(&h.only, "only", h.only, "plant only the bugs whose name matches this regular expression")
	c.Flags().StringVar(&h.root, "root", h.root, "the top of the repository")
	c.Flags().DurationVar(&h.patience, "patience", h.patience, "how long a bug may stay unfound")
	c.Flags().IntVar(&h.members, "members", h.members, "how many members; 0: three or five, by the seed")
	c.Flags().Uint64Var(&h.seed, "seed", h.seed, "the seed of the first round against each bug")
	return c
}

func (h hunt) run(ctx context.Context, out io.Writer) error {
	only, err := regexp.Compile(h.only)
	if err != nil {
		return fmt.Errorf("--only is not a regular expression: %w", err)
	}
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "bug\tfound by\trounds\tafter")
	unfound := 0
	for _, b := range bugs.All {
		if !only.MatchString(b.Name) {
			continue
		}
		finding, err := h.find(ctx, b)
		if err != nil {
			return err
		}
		if finding.by == "" {
			unfound++
			finding.by = "NOT FOUND"
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%.0f s\n", b.Name, finding.by, finding.rounds, finding.after.Seconds())
		if err := w.Flush(); err != nil {
			return fmt.Errorf("write the table: %w", err)
		}
	}
	if unfound > 0 {
		return fmt.Errorf("%d bugs were not found within %s each", unfound, h.patience)
	}
	return nil
}

// finding is how a bug was found.
type finding struct {
	by     string
	rounds int
	after  time.Duration
}

func (h hunt) find(ctx context.Context, b bugs.Bug) (f finding, err error) {
	root, err := filepath.Abs(h.root)
	if err != nil {
		return f, fmt.Errorf("find the repository: %w", err)
	}
	program := filepath.Join(h.folder, "member")
	if err := b.Build(ctx, root, program); err != nil {
		return f, err
	}
	start := time.Now()
	for time.Since(start) < h.patience && ctx.Err() == nil {
		o := play(ctx, program, h.folder, newPlan(h.seed+uint64(f.rounds), h.members, h.faults, b.Clocks(), b.Under...))
		f.rounds++
		f.after = time.Since(start)
		if err := os.RemoveAll(o.folder); err != nil {
			return f, fmt.Errorf("remove the data of a round: %w", err)
		}
		if o.bad() {
			f.by = o.reason()
			return f, ctx.Err()
		}
	}
	return f, ctx.Err()
}
