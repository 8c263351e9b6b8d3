package postgresql

import (
	"context"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tripod.dev/tripod/failover/driver"
	"tripod.dev/tripod/failover/driver/postgresql/wal"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// source is what the primary of a call says of itself.
type source struct {
	facts   *agentv1.SourceFacts
	history wal.History
	// epoch is the highest at which the source's data had a primary.
	epoch    int64
	lineage  map[int64]origin // by timeline
	oldest   wal.LSN
	recovery bool
}

type origin struct {
	cluster string
	epoch   int64
	began   int64 // microseconds; it never changes, as the epoch may
}

// identity tells two timelines of one number apart.
func (o origin) identity() string { return fmt.Sprintf("%s@%d", o.cluster, o.began) }

func (s source) origins() map[int64]string {
	all := make(map[int64]string, len(s.lineage))
	for timeline, o := range s.lineage {
		all[timeline] = o.identity()
	}
	return all
}

// readSource asks the primary. It also makes the primary write a checkpoint:
// before the first one after a promotion, pg_rewind takes the primary's
// timeline for the old one.
func (d *Driver) readSource(ctx context.Context, c driver.Call) (source, error) {
	src := source{lineage: map[int64]origin{}}
	conn, err := d.connect(ctx, c.Dataset, c.PrimaryAddress)
	if err != nil {
		return src, err
	}
	defer hangUp(conn)
	if err := src.read(ctx, conn); err != nil {
		return src, fmt.Errorf("ask primary %s at %s: %w", c.Primary, c.PrimaryAddress, err)
	}
	if src.recovery {
		return src, fmt.Errorf("%s at %s is a replica still, it is promoted first", c.Primary, c.PrimaryAddress)
	}
	err = d.replication(ctx, c.Dataset, c.PrimaryAddress, func(r *pgconn.PgConn) error {
		if src.facts, src.history, err = identify(ctx, r, c.PrimaryAddress); err == nil {
			src.facts.Origins = src.origins()
		}
		return err
	})
	return src, err
}

func (s *source) read(ctx context.Context, conn *pgx.Conn) error {
	if err := conn.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&s.recovery); err != nil || s.recovery {
		return err
	}
	if err := s.readLineage(ctx, conn); err != nil {
		return err
	}
	var segment string
	var size int64
	err := conn.QueryRow(ctx, `SELECT coalesce(min(substr(name, 9)), '0000000000000000'), pg_size_bytes(current_setting('wal_segment_size'))
		FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'`).Scan(&segment, &size)
	if err != nil {
		return err
	}
	if s.oldest, err = segmentStart(segment, size); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "CHECKPOINT")
	return err
}

func (s *source) readLineage(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, "SELECT timeline, epoch, cluster, (extract(epoch FROM at) * 1000000)::bigint FROM tripod.lineage")
	if err != nil {
		return err
	}
	var timeline int64
	var o origin
	_, err = pgx.ForEachRow(rows, []any{&timeline, &o.epoch, &o.cluster, &o.began}, func() error {
		s.lineage[timeline] = o
		s.epoch = max(s.epoch, o.epoch)
		return nil
	})
	return err
}

// segmentStart is where a segment begins: its name without the timeline holds
// the upper 32 bits and the number of the segment below them.
func segmentStart(name string, size int64) (wal.LSN, error) {
	if len(name) != 16 {
		return 0, fmt.Errorf("log segment %q has no position", name)
	}
	upper, err := strconv.ParseUint(name[:8], 16, 32)
	if err != nil {
		return 0, err
	}
	lower, err := strconv.ParseUint(name[8:], 16, 32)
	return wal.LSN(upper<<32 + lower*uint64(size)), err
}

// identify asks for the system's identity and history, which only the
// replication protocol tells.
func identify(ctx context.Context, conn *pgconn.PgConn, address string) (*agentv1.SourceFacts, wal.History, error) {
	row, err := one(ctx, conn, "IDENTIFY_SYSTEM", 3)
	if err != nil {
		return nil, wal.History{}, err
	}
	facts := &agentv1.SourceFacts{Address: address, SystemIdentifier: string(row[0]), Position: string(row[2])}
	if facts.Timeline, err = strconv.ParseInt(string(row[1]), 10, 64); err != nil {
		return nil, wal.History{}, err
	}
	var text string
	if facts.Timeline > 1 {
		row, err := one(ctx, conn, fmt.Sprintf("TIMELINE_HISTORY %d", facts.Timeline), 2)
		if err != nil {
			return nil, wal.History{}, err
		}
		text = string(row[1])
	}
	history, err := wal.ParseHistory(text, facts.Timeline)
	for _, end := range history.Ended {
		facts.History = append(facts.History, &agentv1.TimelineEnd{Timeline: end.Timeline, End: end.LSN.String()})
	}
	return facts, history, err
}

func one(ctx context.Context, conn *pgconn.PgConn, command string, columns int) ([][]byte, error) {
	results, err := conn.Exec(ctx, command).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", command, err)
	}
	if len(results) == 0 || len(results[0].Rows) == 0 || len(results[0].Rows[0]) < columns {
		return nil, fmt.Errorf("%s: the answer is empty", command)
	}
	return results[0].Rows[0], nil
}

// check refuses a source that is not the primary of the call's epoch.
func (s source) check(c driver.Call) error {
	switch {
	case s.epoch > c.Epoch:
		return fmt.Errorf("dataset %s: %s is primary of epoch %d, this is about %d: %w", c.Dataset.Key(), c.Primary, s.epoch, c.Epoch, driver.ErrOlder)
	case s.epoch < c.Epoch:
		return fmt.Errorf("dataset %s: %s is primary of epoch %d and not yet of %d", c.Dataset.Key(), c.Primary, s.epoch, c.Epoch)
	}
	return nil
}
