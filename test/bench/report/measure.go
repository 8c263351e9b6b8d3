package report

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"slices"
)

// Plan says which rows are measured and how often.
type Plan struct {
	// Rounds in which ours and the peer are measured in turn; the median counts.
	Rounds int
	// Only the rows whose name matches; nil is all.
	Only *regexp.Regexp
	// Out takes the rows, Progress what is done meanwhile.
	Out, Progress io.Writer
}

// Wants is true for a row that the plan asks for.
func (p Plan) Wants(name string) bool { return p.Only == nil || p.Only.MatchString(name) }

// Bench is something of ours or the peer's that rows are measured on.
type Bench interface {
	// Name is the program's.
	Name() string
}

// Measured is a row to be measured on benches of kind B.
type Measured[B Bench] struct {
	Name, Unit string
	Better     Better
	// Once is for rows that take their rounds themselves.
	Once    bool
	Measure func(ctx context.Context, on B) (float64, error)
}

// Run measures the row on both in turn and prints it.
func (m Measured[B]) Run(ctx context.Context, plan Plan, ours, peer B) error {
	rounds := plan.Rounds
	if m.Once {
		rounds = 1
	}
	benches := []B{ours, peer}
	measured := make([][]float64, len(benches))
	for round := range rounds {
		for turn := range benches {
			i := (turn + round) % len(benches) // who goes first changes
			value, err := m.Measure(ctx, benches[i])
			if err != nil {
				return fmt.Errorf("%s: %s: %w", m.Name, benches[i].Name(), err)
			}
			measured[i] = append(measured[i], value)
			fmt.Fprintf(plan.Progress, "%s %s round %d of %d: %.4g %s\n", m.Name, benches[i].Name(), round+1, rounds, value, m.Unit)
		}
	}
	return Row{Bench: m.Name, Ours: median(measured[0]), Peer: peer.Name(), Theirs: median(measured[1]), Unit: m.Unit, Better: m.Better}.Print(plan.Out)
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}
