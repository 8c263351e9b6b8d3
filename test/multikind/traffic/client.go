package traffic

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Counters are live totals over all clients.
type Counters struct {
	Sent, Acknowledged, Refused, Unknown atomic.Int64
	// LastAcknowledged is a Monotonic reading.
	LastAcknowledged atomic.Int64
}

// client makes one transfer after the other on a session it keeps for as long
// as it works, across the fault too.
type client struct {
	ledger   *Ledger
	name     string
	journal  *journal
	conn     *pgx.Conn
	endpoint string
	next     int64
}

func (l *Ledger) newClient(n int) (*client, error) {
	name := fmt.Sprintf("%s-c%02d", l.config.Run, n)
	j, err := openJournal(l.config.Dir, name)
	if err != nil {
		return nil, err
	}
	return &client{ledger: l, name: name, journal: j}, nil
}

func (c *client) run(ctx context.Context) error {
	defer func() { _ = c.journal.close() }()
	defer c.hangUp()
	pause := time.NewTicker(c.ledger.config.Pause)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-pause.C:
		}
		if c.conn == nil && !c.callAgain(ctx) {
			continue
		}
		if err := c.transfer(ctx); err != nil {
			return err
		}
	}
}

// callAgain opens a new session and says whether it succeeded.
func (c *client) callAgain(ctx context.Context) bool {
	conn, endpoint, err := c.ledger.connect(ctx)
	if err != nil {
		return false
	}
	c.conn, c.endpoint = conn, endpoint
	return true
}

func (c *client) hangUp() {
	if c.conn == nil {
		return
	}
	// The other side may be a center without power: no polite goodbye.
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_ = c.conn.Close(ctx)
	c.conn = nil
}

// transfer makes one transfer and journals its fate.
func (c *client) transfer(ctx context.Context) error {
	counters := &c.ledger.counters
	c.next++
	from, to := rand.IntN(c.ledger.config.Accounts), rand.IntN(c.ledger.config.Accounts)
	r := Record{ID: fmt.Sprintf("%s-%06d", c.name, c.next), From: from, To: to, Amount: 1 + rand.Int64N(9), Server: c.endpoint}
	r.Event, r.Monotonic = Sent, Monotonic()
	if err := c.journal.append(r); err != nil {
		return err
	}
	counters.Sent.Add(1)

	// A transfer under way is finished when the traffic ends, so that only a
	// fault makes an outcome unknown.
	attempt, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.ledger.config.Attempt)
	defer cancel()
	timeline, err := c.commit(attempt, r)
	r.Monotonic = Monotonic()
	switch {
	case err == nil:
		r.Event, r.Timeline = Acknowledged, timeline
		counters.Acknowledged.Add(1)
		counters.LastAcknowledged.Store(r.Monotonic)
	case errors.Is(err, errRefused):
		r.Event, r.Error = Refused, err.Error()
		counters.Refused.Add(1)
	default:
		r.Event, r.Error = Unknown, err.Error()
		counters.Unknown.Add(1)
	}
	if err != nil {
		c.hangUp()
	}
	return c.journal.append(r)
}

// commit moves the money in one transaction. Every error before COMMIT was
// sent wraps errRefused: the server rolls back what was never committed.
func (c *client) commit(ctx context.Context, r Record) (timeline int64, err error) {
	tx, err := c.conn.Begin(ctx)
	if err != nil {
		return 0, fmt.Errorf("%w: begin: %w", errRefused, err)
	}
	// Accounts are locked in one order by all clients: no deadlocks.
	first, second := r.From, r.To
	deltaFirst, deltaSecond := -r.Amount, r.Amount
	if first > second {
		first, second, deltaFirst, deltaSecond = second, first, deltaSecond, deltaFirst
	}
	batch := &pgx.Batch{}
	batch.Queue(`UPDATE accounts SET balance = balance + $2 WHERE id = $1`, first, deltaFirst)
	batch.Queue(`UPDATE accounts SET balance = balance + $2 WHERE id = $1`, second, deltaSecond)
	batch.Queue(`INSERT INTO transfers (id, source, target, amount, timeline)
		SELECT $1, $2, $3, $4, ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint
		RETURNING timeline`, r.ID, r.From, r.To, r.Amount).QueryRow(func(row pgx.Row) error { return row.Scan(&timeline) })
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return 0, fmt.Errorf("%w: %w", errRefused, err)
	}
	if err := tx.Commit(ctx); err != nil {
		var pg *pgconn.PgError
		if errors.As(err, &pg) && pg.Code[:2] == "25" { // read-only or aborted: it said no
			return 0, fmt.Errorf("%w: commit: %w", errRefused, err)
		}
		return 0, fmt.Errorf("commit: %w", err)
	}
	return timeline, nil
}
