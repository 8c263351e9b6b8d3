package postgresql

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// apart are the settings of a copy that shall not be noticed by anybody: it listens
// on no network, archives nothing and connects to nobody. They come last, and the
// last one counts.
const apart = `listen_addresses = ''
primary_conninfo = ''
primary_slot_name = ''
archive_mode = off
max_logical_replication_workers = 0
synchronous_standby_names = ''
ssl = off
`

// Rehearsal is what a drill measured.
type Rehearsal struct {
	CopySeconds    float64 `json:"copySeconds"`
	PromoteSeconds float64 `json:"promoteSeconds"`
	// Rows of the largest tables of the application's database.
	Tables int   `json:"tables"`
	Rows   int64 `json:"rows"`
}

// Rehearse copies the database at source, a standby, which goes on as before, and
// promotes and probes the copy. cfg.Apart must be set. It may be called once per
// volume, which must be empty. Options are those of the dataset: a replica refuses to start with less than its source had.
func Rehearse(ctx context.Context, e *Engine, c *Copies, source string, options map[string]string) (Rehearsal, error) {
	var r Rehearsal
	if !e.cfg.Apart {
		return r, errors.New("a drill's database must be apart from production: set Apart")
	}
	began := time.Now()
	if err := c.Copy(ctx, &agentv1.SourceFacts{Address: source}, 0, false); err != nil {
		return r, fmt.Errorf("copy the standby: %w", err)
	}
	// What ALTER SYSTEM has set on the source would come after apart.
	if err := e.writeOwned(e.data("postgresql.auto.conf"), nil, 0o600); err != nil {
		return r, err
	}
	r.CopySeconds = time.Since(began).Seconds()
	began = time.Now()
	settings := &agentv1.DatabaseSettings{Cluster: "drill", Options: options}
	exited := func(error) {}
	if err := e.Start(ctx, agentv1.DatabaseMode_DATABASE_MODE_REPLICA, settings, exited); err != nil {
		return r, fmt.Errorf("start the copy: %w", err)
	}
	if err := e.Promote(ctx, settings); err != nil {
		return r, fmt.Errorf("promote the copy: %w", err)
	}
	const write = `INSERT INTO tripod.probe (cluster, epoch, at) VALUES ('drill', 0, now())
		ON CONFLICT (cluster) DO UPDATE SET at = excluded.at;`
	if _, err := e.psql(ctx, "postgres", write); err != nil {
		return r, fmt.Errorf("write to the copy: %w", err)
	}
	r.PromoteSeconds = time.Since(began).Seconds()
	err := r.count(ctx, e)
	return r, errors.Join(err, e.Stop(ctx))
}

// count reads the largest tables whole: what cannot be read is no copy.
func (r *Rehearsal) count(ctx context.Context, e *Engine) error {
	database, err := e.secret("database")
	if err != nil {
		return err
	}
	const counts = `SELECT format('SELECT count(*) FROM %I.%I', n.nspname, c.relname)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
		ORDER BY c.relpages DESC LIMIT 32 \gexec
`
	out, err := e.psql(ctx, database, counts)
	if err != nil {
		return fmt.Errorf("read the copy: %w", err)
	}
	for line := range strings.FieldsSeq(string(out)) {
		n, err := strconv.ParseInt(line, 10, 64)
		if err != nil {
			return fmt.Errorf("read the copy: psql answered %q", line)
		}
		r.Tables++
		r.Rows += n
	}
	return nil
}

// psql runs statements as the database's owner over the copy's own socket.
func (e *Engine) psql(ctx context.Context, database, statements string) ([]byte, error) {
	return e.tool(ctx, statements, "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1",
		"-h", e.volume.Path("run"), "-p", strconv.Itoa(e.cfg.Port), "-U", "postgres", "-d", database, "-f", "-")
}
