package store_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/etcdapi"
	"tripod.dev/tripod/hub/store/storetest"
)

// TestFullDiskRefusesWritesAndLosesNothing fills a real file system.
func TestFullDiskRefusesWritesAndLosesNothing(t *testing.T) {
	mount := t.TempDir()
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", mount).CombinedOutput(); err != nil {
		t.Skipf("no tmpfs here: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", mount).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	c := storetest.Start(t, 1, func(s *store.Config, _ *etcdapi.Config) {
		s.DataDir = filepath.Join(mount, "data")
		s.SegmentBytes, s.SpaceReserve = 2<<20, 16<<20
	})
	m := c.Leader()
	ctx := patience(t)
	if _, err := m.Store.Propose(ctx, putOp("key", "kept")); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(mount, "filler")
	fill(t, filler)
	// No write is under way when the disk fills in one step, as it does not outside of
	// tests: one that was admitted before, and meets the full disk at the log, costs the
	// leadership.
	c.Eventually("the full disk is noticed", func() bool { return m.Store.Membership().Progress().LowOnSpace })
	if _, err := m.Store.Propose(ctx, putOp("big", "x")); !errors.Is(err, store.ErrNoSpace) {
		t.Fatalf("a write on a full disk: %v", err)
	}
	_, err := c.Client().Put(ctx, "big", "x")
	if err == nil || !strings.Contains(err.Error(), mount) || !strings.Contains(err.Error(), "free some or grow the volume") {
		t.Fatalf("the error does not name the path and the remedy: %v", err)
	}
	status, err := c.Client().Status(ctx, "https://"+m.Address.PeerAddress)
	if err != nil || len(status.Errors) != 1 {
		t.Fatalf("status shows no alarm: %+v %v", status, err)
	}
	get, err := c.Client().Get(ctx, "key")
	if err != nil || len(get.Kvs) != 1 {
		t.Fatalf("reads do not go on: %v %v", get, err)
	}
	m.Stop()
	if err := m.TryStart(); err == nil || !strings.Contains(err.Error(), "no space left under") {
		t.Fatalf("start on a full disk: %v", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	m.Start()
	c.Leader()
	if _, err := m.Store.Propose(ctx, putOp("after", "v")); err != nil {
		t.Fatalf("write after space is back: %v", err)
	}
	kvs, _, err := m.Store.Range(ctx, "key")
	if err != nil || len(kvs) != 1 || string(kvs[0].Value) != "kept" {
		t.Fatalf("lost: %v %v", kvs, err)
	}
}

func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for {
		if _, err := f.Write(block); err != nil {
			// Leave a little, or the test's own logs and sockets suffer.
			info, _ := f.Stat()
			if err := f.Truncate(info.Size() - 4<<20); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
}
