package scenario

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/test/multikind/fault"
	"tripod.dev/tripod/test/multikind/traffic"
)

// S19: a copy of the standby's data is drilled under load, apart from production: no
// role moves, replication does not pause, clients notice nothing, nothing is left. Then
// a real disaster strikes during a drill, which gives way.
func TestS19Drill(t *testing.T) {
	f := fleet(t)
	b := business(t, f)
	t.Run("under load", func(t *testing.T) { drillUnderLoad(t, b) })
	t.Run("and a real disaster", func(t *testing.T) { disasterDuringDrill(t, b) })
	audit(t, b)
}

func drillUnderLoad(t *testing.T, b *Business) {
	f := b.fleet
	primary, standby, before := f.pair(t)
	if err := b.AwaitTransfers(t.Context(), 100, time.Minute); err != nil {
		t.Fatal(err)
	}
	began := traffic.Monotonic()
	run := f.drill(t, standby)
	place := f.awaitDrill(t, standby)
	if there := f.drills(t.Context(), t, primary); there != "" {
		t.Errorf("the drill in %s is in %s, too: %s", standby, primary, there)
	}
	err := f.await(t.Context(), 3*time.Minute, "the drill ends", func(ctx context.Context) (string, error) {
		d, err := f.Dataset(ctx)
		if err != nil {
			return "", err
		}
		if m := memberOf(d, standby); m == nil || m.State != v1alpha1.StateStreaming || standbyOf(d) != standby {
			t.Errorf("during the drill: sync set %v, %s", d.Status.SyncSet, states(d))
		}
		return f.phaseMissing(ctx, run, v1alpha1.RunCompleted)
	})
	if err != nil {
		t.Fatal(err)
	}
	if left := f.drills(t.Context(), t, standby); left != "" {
		t.Errorf("of the drill in %s of %s is left: %s", place, standby, left)
	}
	if err := b.AwaitTransfers(t.Context(), 100, time.Minute); err != nil {
		t.Error(err)
	}
	pause, err := b.longestPause(began)
	if err != nil {
		t.Fatal(err)
	}
	f.tell(fmt.Sprintf("the longest time without an acknowledged transfer was %v", pause))
	if pause > tooLong {
		t.Errorf("clients could not write for %v during a drill", pause)
	}
	if wrong, err := unmoved(f, before)(t.Context()); err != nil || wrong != "" {
		t.Errorf("after the drill: %s %v", wrong, err)
	}
	said := must(t)(f.Tripodctl(t.Context(), "run", run))
	says(t, said, "Completed", "drill", standby)
	t.Log(said)
	if verified, err := f.verifyEvidence(t.Context(), run); err != nil || !verified {
		t.Errorf("the evidence of %s is verified: %t %v", run, verified, err)
	}
}

// disasterDuringDrill keeps the drill's pod from running, so that the drill is under
// way when the primary's center loses power.
func disasterDuringDrill(t *testing.T, b *Business) {
	f := b.fleet
	_, standby, before := f.pair(t)
	cont := fault.Fault{Kind: fault.Cont, Process: "kubelet", Center: standby}
	t.Cleanup(func() { _, _ = f.Lab.Inject(context.WithoutCancel(t.Context()), cont) })
	f.inject(t, fault.Fault{Kind: fault.Stop, Process: "kubelet", Center: standby})
	run := f.drill(t, standby)
	f.awaitDrill(t, standby)
	result, err := b.LosePrimary(t.Context(), false)
	if err != nil {
		t.Fatalf("lose the primary's center during a drill: %v", err)
	}
	if result.Promoted != standby || !result.EvidenceVerified {
		t.Errorf("%s was promoted, want %s; %+v", result.Promoted, standby, result)
	}
	f.inject(t, cont)
	err = f.await(t.Context(), 2*time.Minute, "the drill has given way", func(ctx context.Context) (string, error) {
		return f.phaseMissing(ctx, run, v1alpha1.RunAborted)
	})
	if err != nil {
		t.Error(err)
	}
	says(t, must(t)(f.Tripodctl(t.Context(), "run", run)), "GivesWay", "nothing of the drill is left")
	if left := f.drills(t.Context(), t, standby); left != "" {
		t.Errorf("of the drill in %s is left: %s", standby, left)
	}
	if err := b.Restore(t.Context(), result); err != nil {
		t.Fatal(err)
	}
	if d, err := f.Dataset(t.Context()); err != nil || d.Status.Epoch != before.Status.Epoch+1 {
		t.Errorf("the epoch is %d, want %d: %v", d.Status.Epoch, before.Status.Epoch+1, err)
	}
}

// drill orders one in a center and returns its run.
func (f *Fleet) drill(t *testing.T, center string) string {
	t.Helper()
	return f.order(t, "drill", application, "--in", center)
}

// drills are the namespaces of drills in a center.
func (f *Fleet) drills(ctx context.Context, t *testing.T, center string) string {
	t.Helper()
	return strings.TrimSpace(must(t)(f.Kubectl(ctx, nil, "--context", "direct-"+center, "get", "namespaces", "-l", "tripod.dev/drill=true", "-o", "name")))
}

// awaitDrill waits until a drill has a pod in a center and returns its namespace.
func (f *Fleet) awaitDrill(t *testing.T, center string) string {
	t.Helper()
	var place string
	err := f.await(t.Context(), time.Minute, "the drill has a pod in "+center, func(ctx context.Context) (missing string, err error) {
		place, err = f.Kubectl(ctx, nil, "--context", "direct-"+center, "get", "pods", "-A", "-l", "tripod.dev/drill=true",
			"-o", "jsonpath={.items[*].metadata.namespace}")
		if err == nil && place == "" {
			missing = "there is none"
		}
		return missing, err
	})
	if err != nil {
		t.Fatal(err)
	}
	return place
}

// phaseMissing says in which other phase a run is, or is empty.
func (f *Fleet) phaseMissing(ctx context.Context, run string, phase v1alpha1.RunPhase) (string, error) {
	runs, err := f.runs(ctx)
	if err == nil && runs[run].Phase != phase {
		return fmt.Sprintf("%s is %s %s: %s", run, runs[run].Phase, runs[run].Reason, runs[run].Message), nil
	}
	return "", err
}
