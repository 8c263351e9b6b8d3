package postgresql

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"tripod.dev/tripod/failover/guard/volume"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// formed marks a copy that Form made and nobody has started yet.
const formed = "tripod.formed"

// schema is made at formation and reaches every copy with the log. lineage says
// which cluster began each timeline: a returning primary reads there who left
// its history.
var schema = []string{
	"CREATE ROLE " + ReplicationUser + " LOGIN REPLICATION PASSWORD '%[1]s'",
	"CREATE ROLE " + MonitorUser + " LOGIN PASSWORD '%[2]s'",
	"GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text, boolean, boolean) TO " + ReplicationUser,
	"GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_file(text, boolean) TO " + ReplicationUser,
	"GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text) TO " + ReplicationUser,
	"GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean) TO " + ReplicationUser,
	"GRANT pg_monitor, pg_checkpoint TO " + MonitorUser,
	"CREATE SCHEMA tripod AUTHORIZATION " + MonitorUser,
	"CREATE TABLE tripod.probe (cluster text PRIMARY KEY, epoch bigint NOT NULL, at timestamptz NOT NULL)",
	"CREATE TABLE tripod.lineage (timeline bigint PRIMARY KEY, epoch bigint NOT NULL, cluster text NOT NULL, at timestamptz NOT NULL)",
	"ALTER TABLE tripod.probe OWNER TO " + MonitorUser,
	"ALTER TABLE tripod.lineage OWNER TO " + MonitorUser,
	`CREATE ROLE "%[3]s" LOGIN PASSWORD '%[4]s'`,
	`CREATE DATABASE "%[5]s" OWNER "%[3]s"`,
}

// Form makes the first copy beside its place and moves it there when it is
// whole.
func (e *Copies) Form(ctx context.Context, s *agentv1.DatabaseSettings) error {
	if done, err := e.alreadyFormed(); done || err != nil {
		return err
	}
	var secrets [5]any
	for i, name := range []string{"replication-password", "monitor-password", "client-user", "client-password", "database"} {
		value, err := e.secret(name)
		if err != nil {
			return err
		}
		if strings.Contains(value, `"`) {
			return fmt.Errorf("%q in the credentials Secret must not hold a double quote", name)
		}
		secrets[i] = quote(value)
	}
	if err := e.writeConfiguration(s, false); err != nil {
		return err
	}
	fresh := e.volume.Path("data.form")
	if err := errors.Join(os.RemoveAll(fresh), e.ownFolder(fresh)); err != nil {
		return err
	}
	if _, err := e.tool(ctx, "", "initdb", "-D", fresh, "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8",
		"--data-checksums", "--auth-local=peer", "--auth-host=scram-sha-256", "--no-instructions"); err != nil {
		return fmt.Errorf("form the first copy: %w", err)
	}
	var statements strings.Builder
	for _, statement := range schema {
		if strings.Contains(statement, "%[") {
			statement = fmt.Sprintf(statement, secrets[:]...)
		}
		statements.WriteString(statement + ";\n")
	}
	out, err := e.tool(ctx, statements.String(), "postgres", "--single", "-D", fresh, "-c", "exit_on_error=on", "postgres")
	if err != nil {
		return fmt.Errorf("make the roles of the first copy: %w: %s", err, out)
	}
	if err := e.writeOwned(fresh+"/"+formed, nil, 0o600); err != nil {
		return err
	}
	if err := os.Rename(fresh, e.data()); err != nil {
		return err
	}
	return volume.SyncDir(e.volume.Path())
}

// alreadyFormed finds a copy that was made just before a crash. Any other data
// on a volume without memory is somebody's: it is not touched.
func (e *Copies) alreadyFormed() (bool, error) {
	if _, err := os.Stat(e.data()); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("look for a database: %w", err)
	}
	_, marked := os.Stat(e.data(formed))
	_, started := os.Stat(e.data("postmaster.opts"))
	if marked == nil && started != nil {
		return true, nil
	}
	return false, fmt.Errorf("%s holds a database that this guard did not form: move it away or restore tripod/state.json", e.data())
}
