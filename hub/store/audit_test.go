package store_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/etcdapi"
	"tripod.dev/tripod/hub/store/storetest"
)

// flipInValue flips a bit inside a value in the member's database, which neither
// bbolt nor mvcc can notice.
func flipInValue(t *testing.T, m *storetest.Member, value string) {
	t.Helper()
	path := filepath.Join(m.Dir, "db")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(data, []byte(value)) {
		t.Fatalf("%q is not in %s, so this test shows nothing", value, path)
	}
	altered := strings.Replace(value, "a", "c", 1)
	if err := os.WriteFile(path, bytes.ReplaceAll(data, []byte(value), []byte(altered)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestAMemberWithAlteredDataNeverServesThem flips a bit in a value at rest.
func TestAMemberWithAlteredDataNeverServesThem(t *testing.T) {
	c := storetest.Start(t, 3, nil)
	ctx := patience(t)
	for i := range 20 {
		if _, err := c.Leader().Store.Propose(ctx, putOp(fmt.Sprintf("k%d", i), fmt.Sprintf("balance-%02d", i))); err != nil {
			t.Fatal(err)
		}
	}
	c.Converged()
	victim := c.Follower()
	victim.Stop()
	flipInValue(t, victim, "balance-07")
	victim.Start()
	reading, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if get, err := c.Client(victim).Get(reading, "k7"); err == nil && string(get.Kvs[0].Value) != "balance-07" {
		t.Fatalf("served %q", get.Kvs[0].Value)
	}
	if err := victim.Ended(); err == nil || !strings.Contains(err.Error(), victim.Dir) || !strings.Contains(err.Error(), "remove this member's data directory") {
		t.Fatalf("the member ended with %v", err)
	}
	victim.Stop()
	if err := victim.TryStart(); err == nil || !strings.Contains(err.Error(), "refusing to start") {
		t.Fatalf("started again: %v", err)
	}
	if err := os.RemoveAll(victim.Dir); err != nil {
		t.Fatal(err)
	}
	victim.Start()
	c.Converged()
	assertSameHash(t, c, ctx)
}

// TestDataThatAreAlteredWhileServedAreNoticed is what the periodic audit is for.
func TestDataThatAreAlteredWhileServedAreNoticed(t *testing.T) {
	c := storetest.Start(t, 3, func(s *store.Config, _ *etcdapi.Config) { s.AuditInterval = 100 * time.Millisecond })
	ctx := patience(t)
	if _, err := c.Leader().Store.Propose(ctx, putOp("key", "balance-07")); err != nil {
		t.Fatal(err)
	}
	c.Converged()
	victim := c.Follower()
	c.Eventually("the value is in the file", func() bool {
		data, err := os.ReadFile(filepath.Join(victim.Dir, "db"))
		return err == nil && bytes.Contains(data, []byte("balance-07"))
	})
	flipInPlace(t, filepath.Join(victim.Dir, "db"), "balance-07")
	if err := victim.Ended(); err == nil || !strings.Contains(err.Error(), "something has altered them") {
		t.Fatalf("the member ended with %v", err)
	}
	if _, err := c.Client(c.Leader()).Put(ctx, "key", "more"); err != nil {
		t.Fatal(err)
	}
}

// flipInPlace alters the file under the running member, which has it mapped.
func flipInPlace(t *testing.T, path, value string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for at := 0; ; at++ {
		i := bytes.Index(data[at:], []byte(value))
		if i < 0 {
			return
		}
		at += i
		if _, err := f.WriteAt([]byte{data[at] ^ 1}, int64(at)); err != nil {
			t.Fatal(err)
		}
	}
}
