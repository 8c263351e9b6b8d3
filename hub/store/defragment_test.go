package store_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"tripod.dev/tripod/hub/store"
)

// crashAt makes the member of crashDir end while its database is rewritten.
const crashAt = "STORE_CRASH_AT"

// The moments. beforeRename is one inside etcd's backend: a folder that takes the
// place of the database lets the renaming fail, at which the backend panics.
const (
	beforeCopy   = "before the copy"
	beforeRename = "between the copy and the renaming"
	afterRename  = "after the renaming"
)

func crashWhileDefragmenting(dir, moment string) store.Failpoints {
	return func(p store.Point) error {
		switch {
		case p == store.BeforeDefragment && moment == beforeCopy, p == store.AfterDefragment && moment == afterRename:
			os.Exit(3)
		case p == store.BeforeDefragment && moment == beforeRename:
			db := filepath.Join(dir, "data", "db")
			if err := os.Rename(db, db+".moved"); err != nil {
				return err
			}
			return os.Mkdir(db, 0o700)
		}
		return nil
	}
}

// TestCrashWhileDefragmentingLosesNothing ends the process at three moments. At each
// there is one whole database with the same content.
func TestCrashWhileDefragmentingLosesNothing(t *testing.T) {
	for _, moment := range []string{beforeCopy, beforeRename, afterRename} {
		t.Run(moment, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "crash") // a unix socket's path must be short
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			endpoint, db := "unix://"+filepath.Join(dir, "sock"), filepath.Join(dir, "data", "db")
			client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Logger: zap.NewNop()})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			process, said := serve(t, dir, moment)
			ctx := patience(t)
			checkAcknowledged(t, client, []int{0}, []int{0})
			for i := range 50 {
				if _, err := client.Put(ctx, fmt.Sprintf("key/%d", i%10), strings.Repeat("v", 1+i)); err != nil {
					t.Fatal(err)
				}
			}
			before, err := client.HashKV(ctx, endpoint, 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := defragmentWhenIdle(ctx, client, endpoint); err == nil {
				t.Fatal("the process lives, so this test shows nothing")
			}
			_ = process.Wait()
			if moment == beforeRename {
				whole, err := filepath.Glob(db + ".tmp.*")
				if err != nil || len(whole) != 1 || !strings.Contains(said.String(), "failed to rename tmp database") {
					t.Fatalf("it crashed elsewhere: %v %v\n%s", whole, err, said)
				}
				if err := os.Remove(db); err != nil { // what the failpoint did
					t.Fatal(err)
				}
				if err := os.Rename(db+".moved", db); err != nil {
					t.Fatal(err)
				}
			}
			again, _ := serve(t, dir, "")
			checkAcknowledged(t, client, []int{0}, []int{0})
			after, err := client.HashKV(ctx, endpoint, 0)
			if err != nil {
				t.Fatal(err)
			}
			if after.Hash != before.Hash || after.HashRevision != before.HashRevision {
				t.Errorf("hash %x of revision %d, want %x of %d", after.Hash, after.HashRevision, before.Hash, before.HashRevision)
			}
			if left, err := filepath.Glob(db + ".*"); err != nil || len(left) != 0 {
				t.Errorf("left over: %v %v", left, err)
			}
			if err := defragmentWhenIdle(ctx, client, endpoint); err != nil {
				t.Errorf("the next time: %v", err)
			}
			if get, err := client.Get(ctx, "key/", clientv3.WithPrefix()); err != nil || len(get.Kvs) != 10 {
				t.Errorf("%v keys of 10: %v", get, err)
			}
			_ = again.Process.Kill()
			_ = again.Wait()
		})
	}
}

// defragmentWhenIdle repeats it while a snapshot is being written.
func defragmentWhenIdle(ctx context.Context, client *clientv3.Client, endpoint string) error {
	for {
		if _, err := client.Defragment(ctx, endpoint); err == nil || !strings.Contains(err.Error(), store.ErrBusy.Error()) {
			return err
		}
	}
}

// serve runs a member of dir in a process of its own.
func serve(t *testing.T, dir, moment string) (*exec.Cmd, *strings.Builder) {
	t.Helper()
	var said strings.Builder
	process := exec.CommandContext(patience(t), os.Args[0])
	process.Env = append(os.Environ(), crashDir+"="+dir, crashAt+"="+moment)
	process.Stderr = &said
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = process.Process.Kill() })
	return process, &said
}
