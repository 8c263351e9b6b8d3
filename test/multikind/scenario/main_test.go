package scenario

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"tripod.dev/tripod/test/multikind/lab"
)

// The scenarios share one lab, booted by the first of them and taken away at
// the end. They run one after the other, and each starts by repairing whatever
// the one before it broke.
var shared struct {
	once  sync.Once
	fleet *Fleet
	err   error
}

// labName is the lab's name: `scenario`, or what TRIPOD_LAB_NAME says, so that
// two people on one machine have a lab each.
func labName() string {
	return cmp.Or(os.Getenv("TRIPOD_LAB_NAME"), "scenario")
}

func TestMain(m *testing.M) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := m.Run()
	stop()
	if os.Getenv("TRIPOD_KEEP_LAB") == "" {
		if err := lab.Down(context.WithoutCancel(ctx), "", labName(), func(string) {}); err != nil {
			fmt.Fprintln(os.Stderr, "take the lab away:", err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// fleet returns the shared fleet with the ledger deployed, repaired.
func fleet(t *testing.T) *Fleet {
	t.Helper()
	if testing.Short() {
		t.Skip("the lab takes minutes: not with -short")
	}
	start := time.Now()
	tell := func(line string) { fmt.Printf("%7.1fs  %s\n", time.Since(start).Seconds(), line) }
	shared.once.Do(func() {
		bin, err := filepath.Abs("../../../bin")
		if err != nil {
			shared.err = err
			return
		}
		config := lab.Config{Name: labName(), BinDir: bin, Nodes: lab.NodesReal}
		shared.fleet, shared.err = Boot(t.Context(), config, tell)
		if shared.err == nil {
			shared.err = shared.fleet.Deploy(t.Context())
		}
	})
	if shared.err != nil {
		t.Fatalf("boot the fleet: %v", shared.err)
	}
	f := shared.fleet
	f.tell = tell
	if err := f.Repair(t.Context()); err != nil {
		t.Fatalf("repair the fleet: %v", err)
	}
	if err := f.AwaitClusters(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := f.AwaitApplication(t.Context(), 3*time.Minute); err != nil {
		t.Fatal(err)
	}
	return f
}

// business opens the ledger for a scenario and starts its clients.
func business(t *testing.T, f *Fleet) *Business {
	t.Helper()
	// The journals of all scenarios on one lab are audited together: the
	// database remembers the transfers of the scenarios before.
	b, err := f.OpenBusiness(t.Context(), filepath.Join(f.Lab.Folder(""), "journals"), fmt.Sprintf("%s-%d", t.Name(), time.Now().Unix()))
	if err != nil {
		t.Fatalf("open the ledger: %v", err)
	}
	b.Start(t.Context())
	t.Cleanup(func() {
		if err := b.Stop(); err != nil {
			t.Errorf("stop the traffic: %v", err)
		}
	})
	return b
}

// audit fails the test when the ledger's audit finds a violation.
func audit(t *testing.T, b *Business) {
	t.Helper()
	report, err := b.AwaitCopies(t.Context(), 2*time.Minute)
	if err != nil {
		t.Fatalf("audit the ledger: %v", err)
	}
	t.Logf("audit: %+v", report)
	if err := report.Err(); err != nil {
		t.Error(err)
	}
}
