package etcdapi_test

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/etcdapi"
	"tripod.dev/tripod/hub/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// etcdctl runs the real command with an administrator's certificate.
type etcdctl struct {
	t    *testing.T
	path string
	env  []string
}

func newEtcdctl(t *testing.T, c *storetest.Cluster) *etcdctl {
	t.Helper()
	path, err := exec.LookPath("etcdctl")
	if err != nil {
		t.Skip("etcdctl is not installed (Debian: etcd-client)")
	}
	dir := t.TempDir()
	c.CA.Files(t, c.CA.Identity(t, "tripod:admin", etcdapi.AdminsOrganization), dir)
	var endpoints []string
	for _, m := range c.Members {
		endpoints = append(endpoints, "https://"+m.Address.PeerAddress)
	}
	return &etcdctl{t: t, path: path, env: append(os.Environ(),
		"ETCDCTL_API=3", "ETCDCTL_ENDPOINTS="+strings.Join(endpoints, ","),
		"ETCDCTL_CACERT="+filepath.Join(dir, "ca.crt"), "ETCDCTL_CERT="+filepath.Join(dir, "tls.crt"), "ETCDCTL_KEY="+filepath.Join(dir, "tls.key"),
	)}
}

// at returns e for one member only.
func (e *etcdctl) at(m *storetest.Member) *etcdctl {
	one := *e
	one.env = append(append([]string(nil), e.env...), "ETCDCTL_ENDPOINTS=https://"+m.Address.PeerAddress)
	return &one
}

func (e *etcdctl) command(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), storetest.Patience)
	e.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, e.path, args...)
	cmd.Env = e.env
	return cmd
}

func (e *etcdctl) run(args ...string) string {
	e.t.Helper()
	return e.feed("", args...)
}

func (e *etcdctl) feed(input string, args ...string) string {
	e.t.Helper()
	cmd := e.command(args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		e.t.Fatalf("etcdctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (e *etcdctl) expect(want string, args ...string) {
	e.t.Helper()
	if got := e.run(args...); !strings.Contains(got, want) {
		e.t.Fatalf("etcdctl %s: got\n%s\nwant %q in it", strings.Join(args, " "), got, want)
	}
}

func TestEtcdctlWorks(t *testing.T) {
	c := storetest.Start(t, 3, nil)
	c.Leader()
	e := newEtcdctl(t, c)
	e.expect("OK", "put", "fruit/apple", "red")
	e.expect("OK", "put", "fruit/plum", "blue")
	e.expect("red", "get", "fruit/apple")
	e.expect("fruit/plum", "get", "fruit/", "--prefix", "--keys-only")
	e.expect("1", "del", "fruit/plum")
	if got := e.feed("value(\"fruit/apple\") = \"red\"\n\nput fruit/apple green\n\nput fruit/apple black\n\n", "txn"); !strings.Contains(got, "SUCCESS") {
		t.Fatalf("txn: %s", got)
	}
	e.expect("green", "get", "fruit/apple")
	granted := e.run("lease", "grant", "60")
	id := strings.Fields(granted)[1]
	e.expect("OK", "put", "leased", "v", "--lease="+id)
	e.expect("remaining", "lease", "timetolive", id, "--keys")
	e.expect("keepalived", "lease", "keep-alive", "--once", id)
	e.expect(id, "lease", "list")
	e.expect("revoked", "lease", "revoke", id)
	if got := e.run("get", "leased"); strings.TrimSpace(got) != "" {
		t.Fatalf("the key of a revoked lease is still there: %s", got)
	}
	e.expect("m2", "member", "list")
	e.expect("is healthy", "endpoint", "health")
	e.expect("3.6.8", "endpoint", "status", "-w", "table")
	e.expect("compacted", "compact", "4")
	e.at(c.Members[0]).expect("Finished defragmenting", "defrag")
	if got := e.run("alarm", "list"); strings.TrimSpace(got) != "" {
		t.Fatalf("alarms: %s", got)
	}
	var hashes []struct{ HashKV struct{ Hash uint32 } }
	if err := json.Unmarshal([]byte(e.run("endpoint", "hashkv", "-w", "json")), &hashes); err != nil {
		t.Fatal(err)
	}
	for _, h := range hashes {
		if h.HashKV.Hash != hashes[0].HashKV.Hash || h.HashKV.Hash == 0 {
			t.Fatalf("members differ: %+v", hashes)
		}
	}
}

func TestEtcdctlShowsAndDisarmsTheAlarmOfTheQuota(t *testing.T) {
	c := storetest.Start(t, 1, func(s *store.Config, _ *etcdapi.Config) { s.Quota = 1 << 20 })
	m := c.Leader()
	e := newEtcdctl(t, c)
	value := strings.Repeat("v", 60_000)
	c.Eventually("the quota is exceeded", func() bool {
		out, err := e.command("put", "key", value).CombinedOutput()
		return err != nil && strings.Contains(string(out), "mvcc: database space exceeded")
	})
	c.Eventually("the alarm is raised", func() bool {
		return strings.Contains(e.run("alarm", "list"), "alarm:NOSPACE")
	})
	e.run("compact", strconv.FormatInt(m.Store.Revision(), 10), "--physical")
	c.Eventually("the alarm goes by itself", func() bool {
		return strings.TrimSpace(e.run("alarm", "list")) == ""
	})
	e.expect("OK", "put", "key", "small")
	e.run("alarm", "disarm")
}

func TestEtcdctlMovesTheLeader(t *testing.T) {
	c := storetest.Start(t, 3, nil)
	follower := c.Follower()
	e := newEtcdctl(t, c)
	e.expect("Leadership transferred", "move-leader", hex(follower.Store.Membership().SelfID()))
	c.Eventually("the follower leads", follower.Store.IsLeader)
}

func hex(id uint64) string {
	const digits = "0123456789abcdef"
	var out []byte
	for ; id > 0; id >>= 4 {
		out = append([]byte{digits[id&15]}, out...)
	}
	return string(out)
}

func TestEtcdctlWatches(t *testing.T) {
	c := storetest.Start(t, 1, nil)
	c.Leader()
	e := newEtcdctl(t, c)
	cmd := e.command("watch", "key", "--prefix", "--rev=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	e.run("put", "key1", "v1")
	e.run("del", "key1")
	var lines []string
	scanner := bufio.NewScanner(out)
	for len(lines) < 5 && scanner.Scan() {
		lines = append(lines, scanner.Text())
	}
	if got := strings.Join(lines, " "); got != "PUT key1 v1 DELETE key1" {
		t.Fatalf("watch printed %q", got)
	}
}

// TestEtcdctlSnapshotIsARealDatabase takes a backup from a follower and checks it
// with etcdctl's own check of the hash.
func TestEtcdctlSnapshotIsARealDatabase(t *testing.T) {
	c := storetest.Start(t, 3, nil)
	c.Leader()
	e := newEtcdctl(t, c)
	for range 20 {
		e.run("put", "key", strings.Repeat("v", 10_000))
	}
	file := filepath.Join(t.TempDir(), "backup.db")
	follower := c.Follower()
	c.Converged()
	e.at(follower).expect("Snapshot saved", "snapshot", "save", file)
	var status struct{ Revision, TotalKey int64 }
	if err := json.Unmarshal([]byte(e.run("snapshot", "status", file, "-w", "json")), &status); err != nil {
		t.Fatal(err)
	}
	if status.Revision != follower.Store.Revision() || status.TotalKey == 0 {
		t.Fatalf("snapshot status %+v, store at revision %d", status, follower.Store.Revision())
	}
	restored := filepath.Join(t.TempDir(), "restored")
	e.run("snapshot", "restore", file, "--data-dir", restored)
	if _, err := os.Stat(filepath.Join(restored, "member", "snap", "db")); err != nil {
		t.Fatal(err)
	}
}
