package store_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"tripod.dev/tripod/hub/api/backup"
	"tripod.dev/tripod/hub/api/statement"
	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/storetest"
)

func operatorKey(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

// registerOperators makes alice and bob operators of the hub.
func registerOperators(t *testing.T, m *storetest.Member) {
	t.Helper()
	for name, seed := range map[string]byte{"alice": 1, "bob": 2} {
		if err := m.Store.Incarnations().Register(patience(t), name, operatorKey(seed).Public().(ed25519.PublicKey)); err != nil {
			t.Fatal(err)
		}
	}
}

func signedBy(t *testing.T, text []byte, names ...string) []statement.Signature {
	t.Helper()
	var out []statement.Signature
	for _, name := range names {
		s, err := statement.Sign(text, name, operatorKey(map[string]byte{"alice": 1, "bob": 2}[name]))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, s)
	}
	return out
}

// put writes n keys through m.
func put(t *testing.T, c *storetest.Cluster, m *storetest.Member, prefix string, n int) {
	t.Helper()
	client := c.Client(m)
	for i := range n {
		if _, err := client.Put(patience(t), fmt.Sprintf("%s%d", prefix, i), "v"); err != nil {
			t.Fatal(err)
		}
	}
}

func count(t *testing.T, m *storetest.Member, prefix string) int {
	t.Helper()
	kvs, _, err := m.Store.Range(patience(t), prefix)
	if err != nil {
		t.Fatal(err)
	}
	return len(kvs)
}

// founding of a new incarnation on m alone.
func founding(m *storetest.Member) store.Founding {
	config, _ := m.Config()
	config.Members, config.Bootstrap = []store.Member{m.Address}, false
	return store.Founding{Config: config}
}

func TestASurvivorIsRecoveredAndTheOthersAreLeftBehind(t *testing.T) {
	c := storetest.Start(t, 3, nil)
	registerOperators(t, c.Leader())
	put(t, c, c.Leader(), "before", 20)
	c.Converged()
	old := c.Leader().Store.Membership().ClusterID()
	for _, m := range c.Members {
		m.Stop()
	}
	survivor := c.Members[2]
	f := founding(survivor)
	f.Lost = []string{"m0"}
	if _, err := f.Draft(); err == nil || !strings.Contains(err.Error(), "name all of them") {
		t.Fatalf("a recovery that forgets a member: %v", err)
	}
	f.Lost = []string{"m1", "m0"}
	text, err := f.Draft()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Carry(text, signedBy(t, text, "alice")); err == nil || !strings.Contains(err.Error(), "1 of 2 signatures") {
		t.Fatalf("one signature: %v", err)
	}
	stale := bytes.Replace(text, []byte(`"lastIndex": `), []byte(`"lastIndex": 1`), 1)
	if err := f.Carry(stale, signedBy(t, stale, "alice", "bob")); err == nil || !strings.Contains(err.Error(), "not about this data") {
		t.Fatalf("a statement about other data: %v", err)
	}
	if err := f.Carry(text, signedBy(t, text, "alice", "bob")); err != nil {
		t.Fatal(err)
	}
	survivor.Start()
	c.Eventually("the survivor leads alone", survivor.Store.IsLeader)
	if n := count(t, survivor, "before"); n != 20 || survivor.Store.Incarnation() != 2 || survivor.Store.Membership().ClusterID() != old {
		t.Fatalf("%d keys, incarnation %d, hub %x; want 20, 2, %x", n, survivor.Store.Incarnation(), survivor.Store.Membership().ClusterID(), old)
	}
	if begun := survivor.Store.Incarnations().Begun(); string(begun.GetStatement()) != string(text) || len(begun.GetSignatures()) != 2 {
		t.Fatalf("the statement and both signatures are not on record: %v", begun)
	}
	if survivor.Store.Incarnations().Sealed() {
		t.Fatal("a recovered hub is sealed")
	}
	put(t, c, survivor, "after", 20)
	oldOnesStayBehind(t, c, survivor)
}

// oldOnesStayBehind starts the members that were given up. They have a majority of
// the old configuration among themselves.
func oldOnesStayBehind(t *testing.T, c *storetest.Cluster, survivor *storetest.Member) {
	t.Helper()
	for _, m := range c.Members[:2] {
		m.Start()
		defer neverLeads(t, m)()
	}
	behind := func(m *storetest.Member) bool {
		return strings.Contains(strings.Join(m.Store.Maintenance().Alarms(), " "), "gone on without")
	}
	c.Eventually("the old members know that they are left behind", func() bool { return behind(c.Members[0]) && behind(c.Members[1]) })
	for _, m := range c.Members[:2] {
		ctx, cancel := context.WithTimeout(context.Background(), storetest.Patience)
		_, err := m.Store.Propose(ctx, store.StartIncarnation(9, "no"))
		cancel()
		if !errors.Is(err, store.ErrLeftBehind) {
			t.Fatalf("%s takes writes: %v", m.Name, err)
		}
		if n := count(t, m, "before"); n != 20 {
			t.Fatalf("%s cannot be read any more: %d of 20 keys", m.Name, n)
		}
		m.Stop()
		m.Start()
		if !behind(m) {
			t.Fatalf("%s forgot over a restart that it is left behind", m.Name)
		}
	}
	if n := count(t, survivor, "after"); n != 20 || !survivor.Store.IsLeader() || survivor.Store.Incarnation() != 2 {
		t.Fatalf("the old members disturbed the new hub: %d of 20 keys, leading %v", n, survivor.Store.IsLeader())
	}
	fresh := c.Members[0]
	fresh.Stop()
	if _, err := founding(fresh).Draft(); !errors.Is(err, store.ErrLeftBehind) {
		t.Fatalf("a second hub can be recovered from a member that was left behind: %v", err)
	}
	if err := os.RemoveAll(fresh.Dir); err != nil {
		t.Fatal(err)
	}
	if err := survivor.Store.Membership().Add(patience(t), fresh.Address, ""); err != nil {
		t.Fatal(err)
	}
	fresh.Start()
	c.Eventually("a member that was emptied joins as new", func() bool {
		return fresh.Store.Incarnation() == 2 && fresh.Store.Revision() == survivor.Store.Revision()
	})
}

// neverLeads fails the test if m begins to lead before the returned function is
// called.
func neverLeads(t *testing.T, m *storetest.Member) (done func()) {
	ctx, cancel := context.WithCancel(context.Background())
	told := m.Store.Subscribe(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		for l := range told {
			if l.Leading {
				t.Errorf("%s led term %d, although the hub has gone on without it", m.Name, l.Term)
			}
		}
	})
	return func() { cancel(); watching.Wait() }
}

// backUp writes a backup of what m has applied.
func backUp(t *testing.T, m *storetest.Member) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hub.backup")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	_, write, release := m.Store.Maintenance().Copy()
	_, err = write(f)
	if err = errors.Join(err, release(), f.Close()); err != nil {
		t.Fatal(err)
	}
	if err := backup.Seal(path, backup.Origin{Member: m.Name, Version: "v1"}); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestABackupIsRestoredSealed(t *testing.T) {
	c := storetest.Start(t, 3, nil)
	put(t, c, c.Leader(), "before", 20)
	c.Converged()
	file := backUp(t, c.Follower())
	facts, err := backup.Verify(file)
	if err != nil {
		t.Fatal(err)
	}
	leader := c.Leader()
	if facts.Revision != leader.Store.Revision() || facts.Incarnation != 1 || facts.Index != leader.Store.AppliedIndex() ||
		facts.Hub != fmt.Sprintf("%x", leader.Store.Membership().ClusterID()) || facts.Origin.Version != "v1" {
		t.Fatalf("facts %+v", facts)
	}
	put(t, c, leader, "lost", 5)
	for _, m := range c.Members {
		m.Stop()
	}
	fresh := c.New("m9", "c9")
	f := founding(fresh)
	f.Backup = file
	text, err := f.Draft()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Carry(text, nil); err != nil {
		t.Fatal(err)
	}
	if err := f.Carry(text, nil); err == nil || !strings.Contains(err.Error(), "never overwrites") {
		t.Fatalf("a second restore over the first: %v", err)
	}
	fresh.Start()
	c.Eventually("the restored member leads alone", fresh.Store.IsLeader)
	if before, lost := count(t, fresh, "before"), count(t, fresh, "lost"); before != 20 || lost != 0 || fresh.Store.Incarnation() != 2 {
		t.Fatalf("%d and %d keys at incarnation %d", before, lost, fresh.Store.Incarnation())
	}
	startsAfresh(t, c, fresh, leader.Store.Revision())
	if list := fresh.Store.Membership().List(); len(list) != 1 || fresh.Store.Membership().Knows("m0") {
		t.Fatalf("members %+v", list)
	}
	incarnations := fresh.Store.Incarnations()
	if !incarnations.Sealed() {
		t.Fatal("a restored hub is not sealed")
	}
	if err := incarnations.Approve(patience(t), 1, "alice"); err == nil {
		t.Fatal("another incarnation was approved")
	}
	fresh.Stop()
	fresh.Start()
	c.Eventually("it leads again", fresh.Store.IsLeader)
	incarnations = fresh.Store.Incarnations()
	if !incarnations.Sealed() {
		t.Fatal("a restart broke the seal")
	}
	if err := incarnations.Approve(patience(t), 2, "alice"); err != nil {
		t.Fatal(err)
	}
	if incarnations.Sealed() || incarnations.Begun().GetApprovedBy() != "alice" {
		t.Fatalf("sealed %v, begun %v", incarnations.Sealed(), incarnations.Begun())
	}
	if err := incarnations.Approve(patience(t), 2, "bob"); err == nil {
		t.Fatal("approved twice")
	}
}

// startsAfresh: no revision that a client of the lost hub remembers comes again, and
// a watch from one of them is told to begin anew.
func startsAfresh(t *testing.T, c *storetest.Cluster, m *storetest.Member, remembered int64) {
	t.Helper()
	if now := m.Store.Revision(); now <= remembered+1000 {
		t.Errorf("the restored hub is at revision %d, clients remember %d", now, remembered)
	}
	client := c.Client(m)
	for _, revision := range []int64{remembered / 2, remembered} {
		response := <-client.Watch(patience(t), "before", clientv3.WithRev(revision))
		if !errors.Is(response.Err(), rpctypes.ErrCompacted) {
			t.Errorf("a watch from revision %d: %v, want compacted", revision, response.Err())
		}
	}
	kept, err := client.Get(patience(t), "before0")
	if err != nil || len(kept.Kvs) != 1 {
		t.Fatalf("before0: %v, %v", kept, err)
	}
}

func TestARestoreOfAHubWithOperatorsNeedsTwo(t *testing.T) {
	c := storetest.Start(t, 1, nil)
	registerOperators(t, c.Leader())
	file := backUp(t, c.Members[0])
	f := founding(c.New("m9", "c9"))
	f.Backup, f.Incarnation = file, 7
	text, err := f.Draft()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Carry(text, nil); err == nil {
		t.Fatal("no signature was needed")
	}
	if err := f.Carry(text, signedBy(t, text, "alice", "bob")); err != nil {
		t.Fatal(err)
	}
	m := c.Members[1]
	m.Start()
	c.Eventually("the incarnation of the statement begins", func() bool { return m.Store.Incarnation() == 7 })
}

func TestABackupThatWasAlteredOrCutOffIsRefused(t *testing.T) {
	c := storetest.Start(t, 1, nil)
	put(t, c, c.Leader(), "k", 10)
	good, err := os.ReadFile(backUp(t, c.Members[0]))
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 1
	for name, content := range map[string][]byte{
		"a flipped bit":      flipped,
		"a missing end":      good[:len(good)-4096],
		"a missing checksum": good[:len(good)-32],
		"nothing":            {},
	} {
		path := filepath.Join(t.TempDir(), "hub.backup")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := backup.Verify(path); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}
