package traffic

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// Config describes the business and where it finds its database.
type Config struct {
	// Host is the global service's name, Port its database port.
	Host string
	Port string
	// Resolvers are the hub members' DNS servers, HOST:PORT.
	Resolvers []string
	// User, Password and Database as PostgreSQL wants them. TLS is required.
	User, Password, Database string
	// Accounts all start with Balance units.
	Accounts int
	Balance  int64
	// Clients make transfers in parallel, each on a session of its own.
	Clients int
	// Pause between two transfers of one client.
	Pause time.Duration
	// Attempt bounds one transfer, Connect one connection.
	Attempt, Connect time.Duration
	// Dir holds the journals; Run names them, so that several runs share a folder.
	Dir, Run string
}

// Defaults fills what is zero.
func (c Config) Defaults() Config {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	if c.Accounts == 0 {
		c.Accounts = 100
	}
	if c.Balance == 0 {
		c.Balance = 1000
	}
	if c.Clients == 0 {
		c.Clients = 8
	}
	set(&c.Pause, 20*time.Millisecond)
	set(&c.Attempt, 1500*time.Millisecond)
	set(&c.Connect, 400*time.Millisecond)
	return c
}

// Total is the constant sum of all balances.
func (c Config) Total() int64 { return int64(c.Accounts) * c.Balance }

// Ledger is the business: its tables and its clients.
type Ledger struct {
	config   Config
	resolver *Resolver
	counters Counters
}

// New returns a ledger; nothing is contacted yet.
func New(config Config) *Ledger {
	config = config.Defaults()
	return &Ledger{
		config:   config,
		resolver: &Resolver{Servers: config.Resolvers, Timeout: 250 * time.Millisecond},
	}
}

// Config returns the configuration with its defaults.
func (l *Ledger) Config() Config { return l.config }

// Counters returns live counts for a progress display.
func (l *Ledger) Counters() *Counters { return &l.counters }

// Open makes the tables and the accounts, once; a second call changes nothing.
func (l *Ledger) Open(ctx context.Context) error {
	conn, _, err := l.connect(ctx)
	if err != nil {
		return fmt.Errorf("open the ledger: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	// No unique constraint on transfers.id: a constraint would hide what the
	// audit is there to find.
	_, err = conn.Exec(ctx, `
		CREATE TABLE IF NOT EXISTS accounts (id int PRIMARY KEY, balance bigint NOT NULL);
		CREATE TABLE IF NOT EXISTS transfers (
			id text NOT NULL, source int NOT NULL, target int NOT NULL, amount bigint NOT NULL,
			timeline bigint NOT NULL, at timestamptz NOT NULL DEFAULT now());
		CREATE INDEX IF NOT EXISTS transfers_id ON transfers (id)`)
	if err != nil {
		return fmt.Errorf("make the ledger's tables: %w", err)
	}
	_, err = conn.Exec(ctx,
		`INSERT INTO accounts SELECT n, $2 FROM generate_series(0, $1 - 1) AS n ON CONFLICT DO NOTHING`,
		l.config.Accounts, l.config.Balance)
	if err != nil {
		return fmt.Errorf("make the ledger's accounts: %w", err)
	}
	return nil
}

// Run makes transfers until ctx is done. It returns an error only when a
// journal cannot be written: everything else is the business of the audit.
func (l *Ledger) Run(ctx context.Context) error {
	var group errgroup.Group
	for n := range l.config.Clients {
		group.Go(func() error {
			client, err := l.newClient(n)
			if err != nil {
				return err
			}
			return client.run(ctx)
		})
	}
	return group.Wait()
}

// connect resolves the name and opens one session with its own deadline.
func (l *Ledger) connect(ctx context.Context) (*pgx.Conn, string, error) {
	ctx, cancel := context.WithTimeout(ctx, l.config.Connect+l.resolver.Timeout*time.Duration(len(l.config.Resolvers)))
	defer cancel()
	endpoint, err := l.resolver.endpoint(ctx, l.config.Host, l.config.Port)
	if err != nil {
		return nil, "", err
	}
	conn, err := Dial(ctx, endpoint, l.config.User, l.config.Password, l.config.Database, l.config.Connect)
	return conn, endpoint, err
}

// Dial opens a session to one PostgreSQL at HOST:PORT over TLS.
func Dial(ctx context.Context, endpoint, user, password, database string, timeout time.Duration) (*pgx.Conn, error) {
	host, port, err := net.SplitHostPort(endpoint)
	if err != nil {
		return nil, fmt.Errorf("split the endpoint %q: %w", endpoint, err)
	}
	quote := func(s string) string {
		return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
	}
	settings, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%s user=%s password=%s dbname=%s sslmode=require application_name=ledger",
		quote(host), quote(port), quote(user), quote(password), quote(database)))
	if err != nil {
		return nil, fmt.Errorf("compose the connection to %s: %w", endpoint, err)
	}
	settings.ConnectTimeout = timeout
	dialer := &net.Dialer{Timeout: timeout}
	settings.DialFunc = dialer.DialContext
	conn, err := pgx.ConnectConfig(ctx, settings)
	if err != nil {
		return nil, fmt.Errorf("connect to PostgreSQL at %s: %w", endpoint, err)
	}
	return conn, nil
}

// errRefused marks a transfer that surely did not happen.
var errRefused = errors.New("refused")
