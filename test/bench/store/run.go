// Package store measures the hub's store beside etcd.
package store

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"tripod.dev/tripod/test/bench/report"
	"tripod.dev/tripod/test/storefleet"
)

// Config says what is measured and how long.
type Config struct {
	report.Plan
	Ours, Peer storefleet.Kind
	// Small is a second peer, for the rows of one member that an API server needs.
	Small storefleet.Kind
	// Folder takes the members' data; it should be on a disk, not in memory.
	Folder string
	// Duration of one measurement.
	Duration time.Duration
	// Kills of the leader for its row.
	Kills int
}

type row = report.Measured[*bed]

// Run measures all rows, the fleets of one member first.
func Run(ctx context.Context, c Config) error {
	if c.Duration <= 0 || c.Rounds < 1 || c.Kills < 1 {
		return errors.New("bench store: duration, rounds and kills must be positive")
	}
	for _, members := range []int{1, 3} {
		rows := slices.DeleteFunc(rows(members, c), func(r row) bool { return !c.Wants(r.Name) })
		if len(rows) == 0 {
			continue
		}
		if err := c.runFleets(ctx, members, rows); err != nil {
			return err
		}
	}
	return nil
}

// smallRows are what an API server asks of its store. A plain put is not among them.
var smallRows = regexp.MustCompile(`^store/(txn/1/c=(1|16|256)/|get-linearizable/1/c=(1|16|256)/|range/1/)`)

// runFleets measures rows on a fleet of each kind, both of that many members.
func (c Config) runFleets(ctx context.Context, members int, rows []row) (err error) {
	kinds := []storefleet.Kind{c.Ours, c.Peer}
	if members == 1 && slices.ContainsFunc(rows, func(r row) bool { return smallRows.MatchString(r.Name) }) {
		kinds = append(kinds, c.Small)
	}
	var beds []*bed
	defer func() {
		for _, b := range beds {
			err = errors.Join(err, b.close())
		}
	}()
	for i, kind := range kinds {
		folder := filepath.Join(c.Folder, fmt.Sprintf("%d-members", members), []string{"ours", "peer", "small"}[i])
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
		if err := r.Run(ctx, c.Plan, beds[0], beds[1]); err != nil {
			return err
		}
		if len(beds) > 2 && smallRows.MatchString(r.Name) {
			if err := r.Run(ctx, c.Plan, beds[0], beds[2]); err != nil {
				return err
			}
		}
	}
	return nil
}
