package postgresql

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"tripod.dev/tripod/failover/driver"
	"tripod.dev/tripod/failover/driver/postgresql/wal"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

const (
	// caughtUpBytes is how little behind counts as without lag: under load
	// there is always something on its way.
	caughtUpBytes = 1 << 20
	// catchingUpBytes is how far behind a replica is still being filled.
	catchingUpBytes = 16 << 20
)

// Observe asks the guard's status and then the database itself.
func (d *Driver) Observe(ctx context.Context, set driver.Dataset) driver.Observation {
	status, address, ok := d.hosts.Host(set.Namespace, set.Name).Status()
	if !ok {
		return driver.Observation{Role: driver.RoleNone, State: driver.StateUnknown,
			Message: "its guard is not connected; see that the pod runs tripod-guard and reaches the agent"}
	}
	o := fromStatus(status)
	if account := d.accountOf(set.Key()); account != "" && (o.Role == driver.RoleReplica || o.State == driver.StateCopying) {
		o.Message = account
	}
	if found := d.divergedOf(set.Key()); found != nil && status.GetMode() == agentv1.DatabaseMode_DATABASE_MODE_STOPPED {
		o.State, o.Message = driver.StateDiverged, found.Error()
	}
	if status.GetMode() == agentv1.DatabaseMode_DATABASE_MODE_STOPPED {
		d.sessions.drop(set.Key())
		return o
	}
	if strings.HasPrefix(status.GetBusy(), "Start") {
		o.State, o.Message = driver.StateStopped, "it is starting"
		return o
	}
	ctx, cancel := context.WithTimeout(ctx, observationTimeout)
	defer cancel()
	err := d.withSession(ctx, set, address, func(s *session) error { return s.observe(ctx, status, &o) })
	if err != nil {
		o.State, o.Message = driver.StateUnknown, err.Error()
	}
	return o
}

func fromStatus(s *agentv1.GuardStatus) driver.Observation {
	o := driver.Observation{
		Role: driver.RoleNone, State: driver.StateStopped, Epoch: s.GetEpoch(), Message: s.GetLastStop(),
		GuardKnown: true, Guarded: s.GetInit() && s.GetEnforcing(),
		HeldEpoch: s.GetHeldEpoch(), HeldSyncSet: s.GetWaitsFor(), Copy: volume(s),
	}
	if lsn, err := wal.ParseLSN(s.GetPosition()); err == nil {
		o.Position = driver.Position{Text: s.GetPosition(), Bytes: int64(lsn), Timeline: s.GetTimeline()}
	}
	switch s.GetMode() {
	case agentv1.DatabaseMode_DATABASE_MODE_PRIMARY:
		o.Role, o.State, o.Epoch, o.Message = driver.RolePrimary, driver.StateRunning, s.GetHeldEpoch(), ""
	case agentv1.DatabaseMode_DATABASE_MODE_REPLICA:
		o.Role, o.State, o.Message = driver.RoleReplica, driver.StateDetached, ""
	default:
		switch {
		case s.GetBusy() == "Copy" || s.GetBusy() == "Rewind":
			o.State, o.Message = driver.StateCopying, s.GetBusy()
		case s.GetFenced():
			o.State = driver.StateFenced
		case s.GetClosed():
			o.State = driver.StateClosed
		case !s.GetFormed():
			o.Message = "the volume is empty"
		}
	}
	return o
}

// volume is what a guard's volume holds. Of a copy that is stopped and neither torn
// nor being made it is not known whether it can be started.
func volume(s *agentv1.GuardStatus) driver.CopyState {
	switch {
	case s.GetBusy() == "Copy" || s.GetBusy() == "Rewind" || s.GetTorn():
		return driver.CopyPartial
	case !s.GetFormed():
		return driver.CopyEmpty
	case s.GetMode() != agentv1.DatabaseMode_DATABASE_MODE_STOPPED:
		return driver.CopyWhole
	}
	return ""
}

func (s *session) observe(ctx context.Context, status *agentv1.GuardStatus, o *driver.Observation) error {
	var recovery bool
	if err := s.conn.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&recovery); err != nil {
		return err
	}
	if recovery {
		o.Role = driver.RoleReplica
		return s.observeReplica(ctx, o)
	}
	o.Role, o.State = driver.RolePrimary, driver.StateRunning
	return s.observePrimary(ctx, status, o)
}

func (s *session) observePrimary(ctx context.Context, status *agentv1.GuardStatus, o *driver.Observation) error {
	var position, names string
	if err := s.conn.QueryRow(ctx, "SELECT pg_current_wal_flush_lsn()::text, current_setting('synchronous_standby_names')").
		Scan(&position, &names); err != nil {
		return err
	}
	timeline, err := writtenTimeline(ctx, s.conn)
	if err != nil {
		return err
	}
	if err := setPosition(o, position, timeline); err != nil {
		return err
	}
	effective := parseStandbys(names)
	for _, standby := range status.GetWaitsFor() {
		if slices.Contains(effective, standby) {
			o.Acknowledges = append(o.Acknowledges, standby)
		}
	}
	standbys, err := s.standbys(ctx)
	if err != nil {
		return err
	}
	for _, standby := range standbys {
		if standby.streaming {
			o.Streaming = append(o.Streaming, standby.name)
			if standby.holds(wal.LSN(o.Position.Bytes) - min(wal.LSN(o.Position.Bytes), caughtUpBytes)) {
				o.CaughtUp = append(o.CaughtUp, standby.name)
			}
		}
	}
	return nil
}

type standby struct {
	name      string
	streaming bool
	sent      wal.LSN
	flushed   wal.LSN
}

// holds is true when the standby surely has this primary's log up to marker, a
// position on the timeline that the primary writes now. What it says that it has
// flushed is not enough: one that is ahead on an older timeline says so for a
// moment, and PostgreSQL believes it, until its stream is refused where that
// timeline ended. Nothing past that end is ever sent on the older one.
func (s standby) holds(marker wal.LSN) bool { return s.sent >= marker && s.flushed >= marker }

func (s *session) standbys(ctx context.Context) ([]standby, error) {
	rows, err := s.conn.Query(ctx, `SELECT application_name, state = 'streaming', coalesce(sent_lsn, '0/0')::text, coalesce(flush_lsn, '0/0')::text
		FROM pg_stat_replication WHERE application_name <> 'pg_basebackup' AND state <> 'backup' ORDER BY 1`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (standby, error) {
		var one standby
		var sent, flushed string
		if err := row.Scan(&one.name, &one.streaming, &sent, &flushed); err != nil {
			return one, err
		}
		var err, err2 error
		one.sent, err = wal.ParseLSN(sent)
		one.flushed, err2 = wal.ParseLSN(flushed)
		return one, errors.Join(err, err2)
	})
}

func (s *session) observeReplica(ctx context.Context, o *driver.Observation) error {
	var position, receiver string
	var timeline, lag, seconds *int64
	err := s.conn.QueryRow(ctx, `SELECT
		greatest(coalesce(pg_last_wal_receive_lsn(), '0/0'), coalesce(pg_last_wal_replay_lsn(), '0/0'))::text,
		coalesce(w.status, ''),
		coalesce(w.received_tli, (SELECT timeline_id FROM pg_control_checkpoint()))::bigint,
		greatest(0, pg_wal_lsn_diff(w.latest_end_lsn, w.flushed_lsn))::bigint,
		CASE WHEN w.status IS NULL THEN NULL
		     WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
		     ELSE greatest(0, extract(epoch FROM now() - pg_last_xact_replay_timestamp()))::bigint END
		FROM (SELECT 1) one LEFT JOIN pg_stat_wal_receiver w ON true`).Scan(&position, &receiver, &timeline, &lag, &seconds)
	if err != nil {
		return err
	}
	var tli int64
	if timeline != nil {
		tli = *timeline
	}
	if err := setPosition(o, position, tli); err != nil {
		return err
	}
	o.LagBytes, o.LagSeconds = lag, seconds
	switch {
	case receiver == "streaming" && lag != nil && *lag > catchingUpBytes:
		o.State = driver.StateCatchingUp
	case receiver == "streaming":
		o.State = driver.StateStreaming
	case receiver != "":
		o.State, o.Message = driver.StateCatchingUp, "the receiver of the log is "+receiver
	default:
		o.State, o.Message = driver.StateDetached, "it receives no log"
	}
	return nil
}

func setPosition(o *driver.Observation, position string, timeline int64) error {
	lsn, err := wal.ParseLSN(position)
	if err != nil {
		return fmt.Errorf("observe position: %w", err)
	}
	o.Position = driver.Position{Text: position, Bytes: int64(lsn), Timeline: timeline}
	return nil
}
