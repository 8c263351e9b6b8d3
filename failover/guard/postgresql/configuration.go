package postgresql

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tripod.dev/tripod/failover/guard/volume"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// Users of the database beside the application's own.
const (
	// MonitorUser observes and probes; it owns the schema tripod and no more.
	MonitorUser = "tripod_monitor"
	// ReplicationUser receives the log and reads the files a rewind needs.
	ReplicationUser = "tripod_replication"
	// undecided is waited for by a copy that is not a primary, so that a
	// promotion acknowledges nothing before its sync set is in force.
	undecided = "tripod-undecided"
)

// options are the settings a dataset's parameters may change, with defaults.
var options = map[string]string{
	"max_connections": "100",
	"shared_buffers":  "64MB",
	"wal_keep_size":   "256MB",
	"max_wal_size":    "1GB",
}

const settings = `# Written by tripod-guard before every start; edits are lost.
data_directory = '%[1]s'
hba_file = '%[2]s'
ident_file = '%[3]s'
listen_addresses = '*'
port = %[4]d
unix_socket_directories = '%[5]s'
ssl = on
ssl_cert_file = '%[6]s'
ssl_key_file = '%[7]s'
ssl_min_protocol_version = 'TLSv1.2'
password_encryption = 'scram-sha-256'
cluster_name = '%[8]s'
wal_level = replica
wal_log_hints = on
fsync = on
full_page_writes = on
synchronous_commit = on
synchronous_standby_names = '%[9]s'
primary_conninfo = '%[10]s'
recovery_target_timeline = 'latest'
hot_standby = on
hot_standby_feedback = on
max_standby_streaming_delay = 1s
recovery_init_sync_method = syncfs
max_wal_senders = 16
max_replication_slots = 16
wal_sender_timeout = 5s
wal_receiver_timeout = 5s
wal_receiver_status_interval = 1s
wal_retrieve_retry_interval = 250ms
tcp_keepalives_idle = 5
tcp_keepalives_interval = 2
tcp_keepalives_count = 3
tcp_user_timeout = 10s
log_destination = 'stderr'
logging_collector = off
log_line_prefix = '%%m [%%p] %%a '
`

const clients = `# Written by tripod-guard before every start; edits are lost.
local     all          postgres                            peer
hostssl   replication  ` + ReplicationUser + `             all  scram-sha-256
hostssl   postgres     ` + ReplicationUser + `             all  scram-sha-256
hostssl   postgres     ` + MonitorUser + `                 all  scram-sha-256
hostssl   all          ` + ReplicationUser + `,` + MonitorUser + ` all reject
hostssl   all          all                                 all  scram-sha-256
hostnossl all          all                                 all  reject
`

func (p *place) configuration() string { return p.volume.Path("tripod", "postgresql.conf") }
func (p *place) passfile() string      { return p.volume.Path("tripod", "passfile") }

// writeConfiguration puts every file in place that a start or a reload reads.
func (p *place) writeConfiguration(s *agentv1.DatabaseSettings, replica bool) error {
	conninfo, waits := "", synchronous(s.GetWaitFor())
	if replica {
		waits = synchronous([]string{undecided})
		if a := s.GetPrimaryAddress(); a != "" {
			c, err := p.conninfo(a, "application_name="+s.GetCluster())
			if err != nil {
				return err
			}
			conninfo = c
		}
	}
	certificate, key, err := p.certificate(s.GetCluster())
	if err != nil {
		return fmt.Errorf("make the database's certificate: %w", err)
	}
	text := fmt.Sprintf(settings, p.data(), p.volume.Path("tripod", "pg_hba.conf"), p.volume.Path("tripod", "pg_ident.conf"),
		p.cfg.Port, p.volume.Path("run"), certificate, key, quote(s.GetCluster()), quote(waits), quote(conninfo))
	for _, name := range sortedKeys(options) {
		value := options[name]
		if v := s.GetOptions()[name]; v != "" {
			value = v
		}
		text += fmt.Sprintf("%s = '%s'\n", name, quote(value))
	}
	if p.cfg.Apart {
		text += apart
	}
	password, err := p.secret("replication-password")
	if err != nil {
		return err
	}
	for path, content := range map[string]string{
		p.configuration():                        text,
		p.volume.Path("tripod", "pg_hba.conf"):   clients,
		p.volume.Path("tripod", "pg_ident.conf"): "",
		p.passfile():                             "*:*:*:" + ReplicationUser + ":" + escapePass(password) + "\n",
	} {
		if err := p.writeOwned(path, []byte(content), 0o600); err != nil {
			return err
		}
	}
	return p.ownFolder(p.volume.Path("run"))
}

// synchronous waits for all of the standbys, whatever their order.
func synchronous(standbys []string) string {
	if len(standbys) == 0 {
		return ""
	}
	quoted := make([]string, len(standbys))
	for i, s := range standbys {
		quoted[i] = `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
	}
	return fmt.Sprintf("FIRST %d (%s)", len(standbys), strings.Join(quoted, ", "))
}

// conninfo reaches the database at address as the replication user.
func (p *place) conninfo(address string, more ...string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("primary's address %q, expected HOST:PORT: %w", address, err)
	}
	return strings.Join(append([]string{"host=" + host, "port=" + port, "user=" + ReplicationUser, "dbname=postgres",
		"passfile=" + p.passfile(), "sslmode=require", "connect_timeout=2", "keepalives_idle=2", "keepalives_interval=1",
		"keepalives_count=3", "tcp_user_timeout=4000"}, more...), " "), nil
}

// quote is for a value between single quotes in a configuration file or in SQL.
func quote(s string) string { return strings.ReplaceAll(s, "'", "''") }

func escapePass(s string) string { return strings.NewReplacer(`\`, `\\`, `:`, `\:`).Replace(s) }

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (p *place) secret(name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(p.cfg.Secrets, name))
	if err != nil {
		return "", fmt.Errorf("the credentials Secret must hold %q: %w", name, err)
	}
	s := strings.TrimRight(string(b), "\r\n")
	if s == "" || strings.ContainsAny(s, "\r\n") {
		return "", fmt.Errorf("%q in the credentials Secret must be one line that is not empty", name)
	}
	return s, nil
}

func (p *place) setStandbySignal(on bool) error {
	path := p.data("standby.signal")
	if on {
		return p.writeOwned(path, nil, 0o600)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// writeOwned puts a file in place with its owner: whoever waits for it may take
// it away in the moment it appears, as PostgreSQL does with a promotion's.
func (p *place) writeOwned(path string, b []byte, mode os.FileMode) error {
	fresh := path + ".tripod"
	if err := volume.WriteFile(fresh, b, mode); err != nil {
		return err
	}
	if err := p.own(fresh); err != nil {
		return err
	}
	if err := os.Rename(fresh, path); err != nil {
		return err
	}
	return volume.SyncDir(filepath.Dir(path))
}

func (p *place) own(path string) error {
	if p.cfg.User == nil {
		return nil
	}
	return os.Chown(path, int(p.cfg.User.Uid), int(p.cfg.User.Gid))
}

func (p *place) ownFolder(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	return p.own(path)
}

// certificate makes the database's own certificate once. Clients that require
// TLS need no more; those that verify get the file from the volume.
func (p *place) certificate(name string) (certFile, keyFile string, err error) {
	certFile, keyFile = p.volume.Path("tripod", "server.crt"), p.volume.Path("tripod", "server.key")
	if _, err := os.Stat(keyFile); err == nil {
		return certFile, keyFile, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(20, 0, 0),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return "", "", err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", "", err
	}
	if err := p.writeOwned(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600); err != nil {
		return "", "", err
	}
	return certFile, keyFile, p.writeOwned(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600)
}
