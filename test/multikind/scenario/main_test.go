package scenario

import (
	"cmp"
	"context"
	"flag"
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
	// recorder has what came of them; played is the one that runs now.
	recorder Recorder
	played   *Outcome
}

// Without -run a slice of the scenarios is played, with -all every one.
var (
	all     = flag.Bool("all", false, "play every scenario, not only those of `make test`")
	results = flag.String("results", "", "`folder` for result.json; the table in docs/scenarios.md is written, too")
)

// labName is the lab's name: `scenario`, or what TRIPOD_LAB_NAME says, so that
// two people on one machine have a lab each.
func labName() string {
	return cmp.Or(os.Getenv("TRIPOD_LAB_NAME"), "scenario")
}

func TestMain(m *testing.M) {
	flag.Parse()
	shared.recorder.Folder = *results
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := m.Run()
	stop()
	if *results != "" {
		if err := shared.recorder.Document(page); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	if os.Getenv("TRIPOD_KEEP_LAB") == "" && (shared.fleet != nil || shared.err != nil) {
		if err := lab.Down(context.WithoutCancel(ctx), "", labName(), func(string) {}); err != nil {
			fmt.Fprintln(os.Stderr, "take the lab away:", err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// record skips a scenario that is not wanted now, and writes down what comes of the
// others when they have ended.
func record(t *testing.T) {
	t.Helper()
	named := flag.Lookup("test.run").Value.String() != ""
	switch {
	case testing.Short():
		t.Skip("the lab takes minutes: not with -short")
	case !*all && !named && !InSlice(t.Name()):
		t.Skip("only `make scenarios`, or -run, plays it")
	}
	start := time.Now()
	played := &Outcome{Test: t.Name(), Round: shared.recorder.Round(t.Name())}
	shared.played = played
	t.Cleanup(func() {
		played.Passed, played.Duration = !t.Failed(), seconds(time.Since(start).Round(100*time.Millisecond))
		if err := shared.recorder.Add(*played); err != nil {
			t.Error(err)
		}
	})
}

// fleet returns the shared fleet with the ledger deployed, repaired.
func fleet(t *testing.T) *Fleet {
	t.Helper()
	record(t)
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
	d, err := f.Dataset(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := f.AwaitNoLossBeside(t.Context(), d.Status.Primary); err != nil {
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
	measured(t, b)
	return b
}

// measured ends the traffic with the test, and records what the clients saw.
func measured(t *testing.T, b *Business) {
	t.Helper()
	played := shared.played
	t.Cleanup(func() {
		if err := b.Stop(); err != nil {
			t.Errorf("stop the traffic: %v", err)
		}
		played.measure(b.longest, b.audited)
	})
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
