package scenario

import (
	"context"
	"testing"
	"time"

	"tripod.dev/tripod/test/multikind/fault"
	"tripod.dev/tripod/test/multikind/traffic"
)

// S14: every replica of the agent crash-loops in a healthy cluster, that of the
// primary, for many leases. Nothing is deleted, nothing moves, and the primary goes
// on: its guard asks the hub itself.
func TestS14TheAgentCrashLoops(t *testing.T) {
	f := fleet(t)
	primary, _, before := f.pair(t)
	placed, err := f.placedObjects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	known, err := f.runs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := business(t, f)
	if err := b.AwaitTransfers(t.Context(), 50, time.Minute); err != nil {
		t.Fatal(err)
	}
	began, kills := traffic.Monotonic(), 0
	err = f.Throughout(t.Context(), 30*time.Second, "the primary keeps its role", func(ctx context.Context) (string, error) {
		effect, err := f.Lab.Inject(ctx, fault.Fault{Kind: fault.Kill, Process: "agent", Center: primary})
		if err == nil {
			kills += effect.Processes
		} // else none runs just now: the kubelet waits before it starts the next
		return unmoved(f, before)(ctx)
	})
	if err != nil {
		t.Error(err)
	}
	pause, err := b.longestPause(began)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d agents were killed; the longest time without an acknowledged transfer was %v", kills, pause)
	if kills < 4 {
		t.Errorf("only %d agents were killed: they did not loop", kills)
	}
	if pause > tooLong {
		t.Errorf("clients could not write for %v while only the agent was broken", pause)
	}
	// Pods made anew are not held back by the kubelet.
	must(t)(f.Kubectl(t.Context(), nil, "--context", "direct-"+primary, "-n", "tripod-system", "delete", "pods",
		"-l", "app.kubernetes.io/name=tripod-agent", "--grace-period", "0", "--force"))
	if err := f.AwaitClusters(t.Context()); err != nil {
		t.Error(err)
	}
	if runs := f.newRuns(t, known); len(runs) != 0 {
		t.Errorf("runs were started: %+v", runs)
	}
	nothingDeleted(t, f, placed)
	audit(t, b)
}
