package scenario

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/test/multikind/fault"
)

// S16: the fence does not answer: the source's guard stands still while the database
// under it runs. The run waits in Fencing; nobody is promoted on its silence alone as
// long as the database acknowledges, and when the guard runs again the move goes on.
func TestS16TheFenceTimesOut(t *testing.T) {
	f := fleet(t)
	primary, standby, before := f.pair(t)
	b := business(t, f)
	if err := b.AwaitTransfers(t.Context(), 50, time.Minute); err != nil {
		t.Fatal(err)
	}
	known, err := f.runs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cont := fault.Fault{Kind: fault.Cont, Process: "guard", Center: primary}
	t.Cleanup(func() { _, _ = f.Lab.Inject(context.WithoutCancel(t.Context()), cont) })
	f.inject(t, fault.Fault{Kind: fault.Stop, Process: "guard", Center: primary})
	run := f.order(t, "failover", application, "--to", standby)
	err = f.Throughout(t.Context(), partitionLasts, "nobody is promoted without a proof", func(ctx context.Context) (string, error) {
		d, err := f.Dataset(ctx)
		if err != nil {
			return "", err
		}
		if d.Status.Phase != v1alpha1.DatasetFencing && d.Status.Epoch != before.Status.Epoch {
			return fmt.Sprintf("the dataset is %s at epoch %d with the proof %q", d.Status.Phase, d.Status.Epoch, d.Status.FenceProof), nil
		}
		return "", nil
	})
	if err != nil {
		t.Error(err)
	}
	f.inject(t, cont)
	f.comesTo(t, run, v1alpha1.RunCompleted)
	if err := b.AwaitTransfers(t.Context(), 100, time.Minute); err != nil {
		t.Errorf("transfers on %s: %v", standby, err)
	}
	after := f.settled(t, primary, standby)
	if after.Status.Primary != standby || after.Status.Epoch != before.Status.Epoch+1 {
		t.Errorf("the primary is %s at epoch %d, want %s at %d", after.Status.Primary, after.Status.Epoch, standby, before.Status.Epoch+1)
	}
	if runs := f.newRuns(t, known); len(runs) != 1 {
		t.Errorf("there are %d new runs, want one: %+v", len(runs), runs)
	}
	audit(t, b)
}

// order has tripodctl order a run, and returns its name.
func (f *Fleet) order(t *testing.T, arguments ...string) string {
	t.Helper()
	out := must(t)(f.Tripodctl(t.Context(), append(arguments, "--detach")...))
	return strings.TrimSpace(strings.TrimPrefix(out, "run "))
}

// comesTo waits until a run is in a phase, and its message says what is wanted.
func (f *Fleet) comesTo(t *testing.T, run string, phase v1alpha1.RunPhase, wants ...string) {
	t.Helper()
	err := f.await(t.Context(), time.Minute, run+" is "+string(phase), func(ctx context.Context) (string, error) {
		r, err := f.recoveryRun(ctx, run)
		if err != nil {
			return "", err
		}
		said := r.Status.Phase == phase
		for _, want := range wants {
			said = said && strings.Contains(r.Status.Message, want)
		}
		if !said {
			return fmt.Sprintf("it is %s: %q, want %q", r.Status.Phase, r.Status.Message, wants), nil
		}
		return "", nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
