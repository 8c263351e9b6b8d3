package postgresql

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"tripod.dev/tripod/failover/driver"
	"tripod.dev/tripod/failover/driver/postgresql/wal"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// kinship is whether the timeline that a copy is on is the source's of that number.
type kinship int

const (
	// kinUnknown: one of the two has no longer the log with which it begins.
	kinUnknown kinship = iota
	kinSame
	kinOther
)

// xlogData is the header of a message of log: its kind, where the log starts, where
// the sender's ends, and the sender's time (PostgreSQL's streaming replication protocol).
const xlogData = 1 + 8 + 8 + 8

// noSuchFile is PostgreSQL's code when a segment of the log has been removed.
const noSuchFile = "58P01"

// kinship asks the source for the log with which the timeline begins that this copy is
// on, and compares it with the copy's own. Who began a timeline is also in the data,
// but only from the new primary's first write on: a copy that was stopped before that
// has nothing but the log itself.
func (d *Driver) kinship(ctx context.Context, c driver.Call, found *agentv1.Divergence) (kinship, error) {
	mine := found.GetBeginning()
	if len(mine) == 0 || found.GetForkTimeline() != found.GetEndTimeline() {
		return kinUnknown, nil
	}
	from, err := wal.ParseLSN(found.GetBeginningPosition())
	if err != nil {
		return kinUnknown, err
	}
	var theirs []byte
	err = d.replication(ctx, c.Dataset, c.PrimaryAddress, func(conn *pgconn.PgConn) error {
		theirs, err = stream(ctx, conn, found.GetEndTimeline(), from, len(mine))
		return err
	})
	var refused *pgconn.PgError
	switch {
	case errors.As(err, &refused) && refused.Code == noSuchFile:
		return kinUnknown, nil
	case err != nil:
		return kinUnknown, fmt.Errorf("dataset %s: read where timeline %d of primary %s begins: %w", c.Dataset.Key(), found.GetEndTimeline(), c.Primary, err)
	case bytes.Equal(mine, theirs):
		return kinSame, nil
	}
	return kinOther, nil
}

// stream reads length bytes of a timeline's log, from a position on.
func stream(ctx context.Context, conn *pgconn.PgConn, timeline int64, from wal.LSN, length int) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn.Frontend().SendQuery(&pgproto3.Query{String: fmt.Sprintf("START_REPLICATION PHYSICAL %s TIMELINE %d", from, timeline)})
	if err := conn.Frontend().Flush(); err != nil {
		return nil, err
	}
	var log []byte
	for len(log) < length {
		message, err := conn.ReceiveMessage(ctx)
		if err != nil {
			return nil, err
		}
		switch m := message.(type) {
		case *pgproto3.ErrorResponse:
			return nil, pgconn.ErrorResponseToPgError(m)
		case *pgproto3.CopyDone:
			return nil, fmt.Errorf("timeline %d ends %d bytes after %s", timeline, len(log), from)
		case *pgproto3.CopyData:
			if len(m.Data) < xlogData || m.Data[0] != 'w' {
				continue
			}
			if at := wal.LSN(binary.BigEndian.Uint64(m.Data[1:])); at != from+wal.LSN(len(log)) {
				return nil, fmt.Errorf("the log goes on at %s after %d bytes from %s", at, len(log), from)
			}
			log = append(log, m.Data[xlogData:]...)
		}
	}
	return log[:length], nil
}
