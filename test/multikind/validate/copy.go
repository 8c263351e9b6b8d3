package validate

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"tripod.dev/tripod/test/multikind/traffic"
)

// Endpoint is where one copy of the database answers.
type Endpoint struct {
	Name    string
	Address string // HOST:PORT
}

// ReadCopy reads one copy straight from its own address in one snapshot.
func ReadCopy(ctx context.Context, e Endpoint, user, password, database string) (Copy, error) {
	conn, err := traffic.Dial(ctx, e.Address, user, password, database, 3*time.Second)
	if err != nil {
		return Copy{}, fmt.Errorf("read the copy %s: %w", e.Name, err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	c := Copy{Name: e.Name}
	var replica bool
	if err := conn.QueryRow(ctx, `SELECT pg_is_in_recovery()`).Scan(&replica); err != nil {
		return Copy{}, fmt.Errorf("read the role of %s: %w", e.Name, err)
	}
	c.Primary = !replica
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return Copy{}, fmt.Errorf("begin a snapshot of %s: %w", e.Name, err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if err := tx.QueryRow(ctx, `SELECT coalesce(sum(balance), 0) FROM accounts`).Scan(&c.Balance); err != nil {
		return Copy{}, fmt.Errorf("sum the balances of %s: %w", e.Name, err)
	}
	rows, err := tx.Query(ctx, `SELECT id, timeline FROM transfers`)
	if err != nil {
		return Copy{}, fmt.Errorf("read the transfers of %s: %w", e.Name, err)
	}
	c.Transfers, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (Transfer, error) {
		var t Transfer
		return t, row.Scan(&t.ID, &t.Timeline)
	})
	if err != nil {
		return Copy{}, fmt.Errorf("read the transfers of %s: %w", e.Name, err)
	}
	return c, nil
}
