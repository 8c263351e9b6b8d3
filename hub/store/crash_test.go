package store_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/etcdapi"
	"tripod.dev/tripod/hub/store/storetest"
)

// crashDir makes the test binary a store of one member instead of running tests.
const crashDir = "STORE_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		fmt.Fprintln(os.Stderr, serveUntilKilled(dir))
		os.Exit(1)
	}
	if dir := os.Getenv(echoDir); dir != "" {
		fmt.Fprintln(os.Stderr, echo(dir))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

func serveUntilKilled(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	s, err := store.New(store.Config{
		Name: "m0", DataDir: filepath.Join(dir, "data"), Bootstrap: true, RaftListen: "127.0.0.1:0",
		Members: []store.Member{{Name: "m0", RaftAddress: "127.0.0.1:1", PeerAddress: "127.0.0.1:2"}},
		// One member has nobody to talk to.
		TLS:    &tls.Config{Certificates: []tls.Certificate{{PrivateKey: key}}},
		Timing: store.Timing{Heartbeat: 50 * time.Millisecond, Election: 50 * time.Millisecond, LeaderLease: 25 * time.Millisecond, Commit: 5 * time.Millisecond},
		// Often, so that kills meet snapshots and log rotation too.
		SnapshotThreshold: 50, TrailingLogs: 10, SnapshotInterval: 20 * time.Millisecond, SegmentBytes: 64 << 10,
		Fail: crashWhileDefragmenting(dir, os.Getenv(crashAt)),
	})
	if err != nil {
		return err
	}
	api, err := etcdapi.New(s, etcdapi.Config{Listen: []string{"unix://" + filepath.Join(dir, "sock")}})
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() { err = api.Run(context.Background()) })
	return s.Run(context.Background())
}

// TestAcknowledgedWritesSurviveKills kills the process with SIGKILL under load
// again and again. Every key counts up; a value that was acknowledged may only be
// followed by one that was tried after it.
func TestAcknowledgedWritesSurviveKills(t *testing.T) {
	// A unix socket's path must be short.
	dir, err := os.MkdirTemp("", "crash")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"unix://" + filepath.Join(dir, "sock")}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	const writers = 8
	var acknowledged, tried [writers]int
	for round := range 6 {
		process := exec.Command(os.Args[0])
		process.Env = append(os.Environ(), crashDir+"="+dir)
		process.Stderr = t.Output()
		if err := process.Start(); err != nil {
			t.Fatal(err)
		}
		checkAcknowledged(t, client, acknowledged[:], tried[:])
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for ctx.Err() == nil {
					tried[w]++
					attempt, cancel := context.WithTimeout(ctx, time.Second)
					_, err := client.Put(attempt, fmt.Sprintf("w%d", w), fmt.Sprint(tried[w]))
					cancel()
					if err != nil {
						return
					}
					acknowledged[w] = tried[w]
				}
			})
		}
		// The moment of the kill is arbitrary; it needs no condition.
		kill := time.AfterFunc(time.Duration(200+37*round)*time.Millisecond, func() { _ = process.Process.Kill() })
		_ = process.Wait()
		kill.Stop()
		stop()
		wg.Wait()
		if acknowledged[0] == 0 {
			t.Fatal("nothing was acknowledged, so this test shows nothing")
		}
	}
}

func checkAcknowledged(t *testing.T, client *clientv3.Client, acknowledged, tried []int) {
	t.Helper()
	deadline := time.Now().Add(storetest.Patience)
	for w := range acknowledged {
		for {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			get, err := client.Get(ctx, fmt.Sprintf("w%d", w))
			cancel()
			if err != nil {
				if time.Now().After(deadline) {
					t.Fatalf("the store does not come back: %v", err)
				}
				continue
			}
			var have int
			if len(get.Kvs) > 0 {
				if _, err := fmt.Sscan(string(get.Kvs[0].Value), &have); err != nil {
					t.Fatal(err)
				}
			}
			if have < acknowledged[w] || have > tried[w] {
				t.Fatalf("writer %d: found %d, acknowledged %d, tried %d", w, have, acknowledged[w], tried[w])
			}
			break
		}
	}
}
