package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"tripod.dev/tripod/test/robustness/traffic"
)

// rounds plays rounds until time is up, tells of each, and ends with the counts.
func rounds(ctx context.Context, s settings, out io.Writer) error {
	start := time.Now()
	total := newTally()
	for i := uint64(0); i == 0 || time.Since(start) < s.duration && ctx.Err() == nil; i++ {
		o := play(ctx, s.program, s.folder, newPlan(s.seed+i, s.members, s.faults, s.clocks))
		if ctx.Err() != nil && i > 0 {
			break // a person ended it
		}
		total.add(o)
		fmt.Fprintln(out, line(o))
	}
	total.print(out)
	if total.bad > 0 {
		return fmt.Errorf("%d of %d rounds are bad: their histories, data and logs are in %s", total.bad, total.rounds, s.folder)
	}
	if err := os.Remove(s.folder); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the folder of good rounds: %w", err)
	}
	return nil
}

// line tells of one round.
func line(o outcome) string {
	var faults []string
	for _, step := range o.plan.steps {
		faults = append(faults, step.Kind.Name)
	}
	text := fmt.Sprintf("seed %d, %d members, %.0f s", o.plan.seed, o.plan.members, o.took.Seconds())
	if o.history != nil {
		text += fmt.Sprintf(", %d operations, %d watches", len(o.history.Operations), len(o.history.Watches))
	}
	text += " (" + strings.Join(faults, ", ") + "): "
	if !o.bad() {
		return text + "ok"
	}
	for _, v := range o.violations {
		text += "\n  " + v.String()
	}
	if o.failure != nil {
		text += "\n  " + strings.ReplaceAll(o.failure.Error(), "\n", "\n  ")
	}
	return text + "\n  kept in " + o.folder + fmt.Sprintf("; again: --seed %d --faults %d --members %d", o.plan.seed, len(o.plan.steps), o.plan.members)
}

// tally adds up rounds.
type tally struct {
	rounds, bad, violations    int
	operations, faults, points map[string]int
}

func newTally() *tally {
	return &tally{operations: map[string]int{}, faults: map[string]int{}, points: map[string]int{}}
}

func (t *tally) add(o outcome) {
	t.rounds++
	t.violations += len(o.violations)
	if o.bad() {
		t.bad++
	}
	for _, step := range o.plan.steps {
		t.faults[step.Kind.Name]++
	}
	for name, n := range o.acted {
		t.points[name] += n
	}
	if o.history != nil {
		for name, n := range traffic.Counts(o.history) {
			t.operations[name] += n
		}
	}
}

func (t *tally) print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	defer func() { _ = w.Flush() }()
	for _, part := range []struct {
		title  string
		counts map[string]int
	}{{"operations", t.operations}, {"faults", t.faults}, {"failpoints that acted", t.points}} {
		fmt.Fprintf(w, "\n%s\t\n", part.title)
		for _, name := range sortedKeys(part.counts) {
			fmt.Fprintf(w, "  %s\t%d\n", name, part.counts[name])
		}
	}
	fmt.Fprintf(w, "\nhistories checked\t%d\nviolations\t%d\nbad rounds\t%d\n", t.rounds, t.violations, t.bad)
}

func sortedKeys(counts map[string]int) []string { return slices.Sorted(maps.Keys(counts)) }
