package postgresql

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tripod.dev/tripod/failover/driver"
)

// Users, keys of the credentials Secret, and the database that tripod's own
// schema is in; failover/guard/postgresql makes them.
const (
	monitorUser        = "tripod_monitor"
	monitorPassword    = "monitor-password"
	replicationUser    = "tripod_replication"
	replicationKey     = "replication-password"
	maintenance        = "postgres"
	statementTimeout   = "5s"
	connectTimeout     = 2 * time.Second
	observationTimeout = 1500 * time.Millisecond
)

// session is one connection, used by one call at a time.
type session struct {
	mu      sync.Mutex
	address string
	conn    *pgx.Conn
}

type sessions struct {
	mu   sync.Mutex
	open map[string]*session
}

func (s *sessions) of(key string) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[key] == nil {
		s.open[key] = &session{}
	}
	return s.open[key]
}

// drop forgets a connection, so that the next use makes a new one.
func (s *sessions) drop(key string) {
	c := s.of(key)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeLocked()
}

func (s *sessions) closeAll() {
	s.mu.Lock()
	open := s.open
	s.open = map[string]*session{}
	s.mu.Unlock()
	for _, c := range open {
		c.mu.Lock()
		c.closeLocked()
		c.mu.Unlock()
	}
}

func (s *session) closeLocked() {
	if s.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = s.conn.Close(ctx)
	s.conn = nil
}

// dialer makes connections to copies with the passwords of their Secrets.
type dialer struct {
	secrets  Secrets
	sessions sessions
}

// withSession runs f on the kept connection to this copy. A connection on which
// anything failed is not used again.
func (d *dialer) withSession(ctx context.Context, set driver.Dataset, address string, f func(*session) error) error {
	s := d.sessions.of(set.Key())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil && (s.conn.IsClosed() || s.address != address) {
		s.closeLocked()
	}
	if s.conn == nil {
		conn, err := d.connect(ctx, set, address)
		if err != nil {
			return err
		}
		s.conn, s.address = conn, address
	}
	err := f(s)
	if err != nil {
		s.closeLocked()
	}
	return err
}

func (d *dialer) connect(ctx context.Context, set driver.Dataset, address string) (*pgx.Conn, error) {
	config, err := d.config(ctx, set, address, monitorUser, monitorPassword)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	return conn, nil
}

// config is built from parts: a password is never put into a URL.
func (d *dialer) config(ctx context.Context, set driver.Dataset, address, user, passwordKey string) (*pgx.ConnConfig, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("address %q, expected HOST:PORT: %w", address, err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", address, err)
	}
	password, err := d.password(ctx, set, passwordKey)
	if err != nil {
		return nil, err
	}
	config, err := pgx.ParseConfig("sslmode=require")
	if err != nil {
		return nil, err
	}
	config.Host, config.Port = host, uint16(number)
	config.User, config.Password, config.Database = user, password, maintenance
	config.Fallbacks = nil
	// The database's certificate is its own: the channel is private, and
	// SCRAM proves to each side that the other knows the secret.
	config.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, ServerName: host}
	config.RuntimeParams["application_name"] = "tripod-agent"
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	return config, nil
}

// prove writes who the primary is: the lineage that a returning primary reads,
// and the probe. It does not wait for standbys.
func (s *session) prove(ctx context.Context, c driver.Call) error {
	tx, err := s.conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }()
	for _, statement := range []string{
		"SET LOCAL synchronous_commit = local",
		"SET LOCAL statement_timeout = '" + statementTimeout + "'",
	} {
		if _, err := tx.Exec(ctx, statement); err != nil {
			return err
		}
	}
	timeline, err := writtenTimeline(ctx, tx)
	if err != nil {
		return err
	}
	if c.Primary == c.Dataset.Cluster {
		if err := claim(ctx, tx, timeline, c); err != nil {
			return err
		}
	}
	if _, err := tx.Exec(ctx, `INSERT INTO tripod.probe (cluster, epoch, at) VALUES ($1, $2, now())
		ON CONFLICT (cluster) DO UPDATE SET epoch = excluded.epoch, at = excluded.at`,
		c.Dataset.Cluster, c.Epoch); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// claim writes that this cluster began the timeline it writes. What another one
// began reaches a copy with the log of that timeline alone; so a copy that holds
// such a row and was promoted to the same number has lost sight of that log.
func claim(ctx context.Context, tx pgx.Tx, timeline int64, c driver.Call) error {
	var began string
	err := tx.QueryRow(ctx, `INSERT INTO tripod.lineage (timeline, epoch, cluster, at) VALUES ($1, $2, $3, now())
		ON CONFLICT (timeline) DO UPDATE SET epoch = greatest(tripod.lineage.epoch, excluded.epoch) RETURNING cluster`,
		timeline, c.Epoch, c.Dataset.Cluster).Scan(&began)
	if err == nil && began != c.Dataset.Cluster {
		err = fmt.Errorf("it writes timeline %d, which %s began: two promotions share the number, compare both copies by hand: %w", timeline, began, driver.ErrRefused)
	}
	return err
}

type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// writtenTimeline is the timeline that a primary writes now; pg_control names
// it only after the next checkpoint.
func writtenTimeline(ctx context.Context, q querier) (int64, error) {
	var segment string
	if err := q.QueryRow(ctx, "SELECT pg_walfile_name(pg_current_wal_lsn())").Scan(&segment); err != nil {
		return 0, err
	}
	if len(segment) < 8 {
		return 0, fmt.Errorf("log file %q has no timeline", segment)
	}
	return strconv.ParseInt(segment[:8], 16, 64)
}

// parseStandbys reads what the guard writes as synchronous_standby_names.
func parseStandbys(setting string) []string {
	_, list, found := strings.Cut(setting, "(")
	if !found {
		return nil
	}
	var names []string
	for name := range strings.SplitSeq(strings.TrimSuffix(list, ")"), ",") {
		names = append(names, strings.Trim(strings.TrimSpace(name), `"`))
	}
	return names
}

// hangUp closes a connection, without waiting for a database that no longer answers.
func hangUp(conn interface {
	Close(ctx context.Context) error
}) {
	closing, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = conn.Close(closing)
}

// replication runs commands of the replication protocol on a connection of its
// own; only the replication user may.
func (d *dialer) replication(ctx context.Context, set driver.Dataset, address string, f func(*pgconn.PgConn) error) error {
	config, err := d.config(ctx, set, address, replicationUser, replicationKey)
	if err != nil {
		return err
	}
	config.RuntimeParams["replication"] = "database"
	dialing, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := pgconn.ConnectConfig(dialing, &config.Config)
	if err != nil {
		return fmt.Errorf("connect to %s for replication: %w", address, err)
	}
	defer hangUp(conn)
	return f(conn)
}
