// Package store measures the hub's store beside etcd.
package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"tripod.dev/tripod/test/bench/report"
	"tripod.dev/tripod/test/storefleet"
)

// Config says what is measured and how long.
type Config struct {
	Ours, Peer storefleet.Kind
	// Folder takes the members' data; it should be on a disk, not in memory.
	Folder string
	// Duration of one measurement of a row, Rounds of them for each kind; the
	// median counts.
	Duration time.Duration
	Rounds   int
	// Kills of the leader for its row.
	Kills int
	// Only the rows whose name matches.
	Only          *regexp.Regexp
	Out, Progress io.Writer
}

// row is one figure, measured once for one kind at a time.
type row struct {
	name   string
	unit   string
	better report.Better
	// once is for rows that take their rounds themselves.
	once    bool
	measure func(ctx context.Context, on *bed) (float64, error)
}

// Run measures all rows, the fleets of one member first.
func Run(ctx context.Context, c Config) error {
	if c.Duration <= 0 || c.Rounds < 1 || c.Kills < 1 {
		return errors.New("bench store: duration, rounds and kills must be positive")
	}
	any := false
	for _, members := range []int{1, 3} {
		rows := slices.DeleteFunc(rows(members, c), func(r row) bool { return !c.Only.MatchString(r.name) })
		if len(rows) == 0 {
			continue
		}
		any = true
		if err := c.runFleets(ctx, members, rows); err != nil {
			return err
		}
	}
	if !any {
		return fmt.Errorf("bench store: no row matches %q", c.Only)
	}
	return nil
}

// runFleets measures rows on a fleet of each kind, both of that many members.
func (c Config) runFleets(ctx context.Context, members int, rows []row) (err error) {
	var beds []*bed
	defer func() {
		for _, b := range beds {
			err = errors.Join(err, b.close())
		}
	}()
	for i, kind := range []storefleet.Kind{c.Ours, c.Peer} {
		folder := filepath.Join(c.Folder, fmt.Sprintf("%d-members", members), []string{"ours", "theirs"}[i])
		f, err := storefleet.Start(ctx, kind, members, folder)
		if err != nil {
			return err
		}
		b := &bed{fleet: f, config: c}
		beds = append(beds, b)
		if err := b.fill(ctx); err != nil {
			return fmt.Errorf("fill %s: %w", kind.Name(), err)
		}
	}
	for _, r := range rows {
		if err := c.runRow(ctx, r, beds); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
	}
	return nil
}

func (c Config) runRow(ctx context.Context, r row, beds []*bed) error {
	rounds := c.Rounds
	if r.once {
		rounds = 1
	}
	measured := make([][]float64, len(beds))
	for round := range rounds {
		for turn := range beds {
			i := (turn + round) % len(beds) // who goes first changes
			value, err := r.measure(ctx, beds[i])
			if err != nil {
				return fmt.Errorf("%s: %w", beds[i].fleet.Kind.Name(), err)
			}
			measured[i] = append(measured[i], value)
			fmt.Fprintf(c.Progress, "%s %s round %d of %d: %.4g %s\n", r.name, beds[i].fleet.Kind.Name(), round+1, rounds, value, r.unit)
		}
	}
	return report.Row{Bench: r.name, Ours: median(measured[0]), Peer: c.Peer.Name(), Theirs: median(measured[1]), Unit: r.unit, Better: r.better}.Print(c.Out)
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}
