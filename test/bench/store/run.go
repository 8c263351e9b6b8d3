// Package store measures the hub's store beside etcd.
package store

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"

	"tripod.dev/tripod/test/bench/report"
	"tripod.dev/tripod/test/storefleet"
)

// Config says what is measured and how long.
type Config struct {
	report.Plan
	Ours, Peer storefleet.Kind
	// Further peers, each for some rows only.
	Further []Further
	// Folder takes the members' data; it should be on a disk, not in memory.
	Folder string
	// Duration of one measurement.
	Duration time.Duration
	// Kills of the leader for its row.
	Kills int
}

// Further is one more peer.
type Further struct {
	storefleet.Kind
	Members int
	Rows    *regexp.Regexp
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

// runFleets measures rows on a fleet of each kind, all of that many members.
func (c Config) runFleets(ctx context.Context, members int, rows []row) (err error) {
	kinds := []storefleet.Kind{c.Ours, c.Peer}
	further := slices.DeleteFunc(slices.Clone(c.Further), func(f Further) bool {
		return f.Members != members || !slices.ContainsFunc(rows, func(r row) bool { return f.Rows.MatchString(r.Name) })
	})
	for _, f := range further {
		kinds = append(kinds, f.Kind)
	}
	var beds []*bed
	defer func() {
		for _, b := range beds {
			err = errors.Join(err, b.close())
		}
	}()
	for i, kind := range kinds {
		folder := filepath.Join(c.Folder, fmt.Sprintf("%d-members", members), strconv.Itoa(i))
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
		for i, f := range further {
			if !f.Rows.MatchString(r.Name) {
				continue
			}
			if err := r.Run(ctx, c.Plan, beds[0], beds[2+i]); err != nil {
				return err
			}
		}
	}
	return nil
}
