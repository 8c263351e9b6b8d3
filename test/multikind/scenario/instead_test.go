package scenario

import (
	"context"
	"strconv"
	"testing"
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/test/multikind/fault"
)

// S20: the target's center loses power after the old primary was given up for it, and
// before it has taken over. Nobody is promoted by itself. A person takes the old primary
// again instead, another one accepts what the target may have acknowledged, and nothing
// is lost; the center that comes back is a replica.
func TestS20TheTargetIsLostBeforeItHasTakenOver(t *testing.T) {
	f := fleet(t)
	primary, standby, before := f.pair(t)
	if err := f.LeadFrom(t.Context(), remoteCenter); err != nil {
		t.Fatal(err)
	}
	another := f.people(t, "ann")[0]
	b := business(t, f)
	if err := b.AwaitTransfers(t.Context(), 100, time.Minute); err != nil {
		t.Fatal(err)
	}
	// Its guard stands still, so that its stop is proven when that goes on, and not before.
	cont := fault.Fault{Kind: fault.Cont, Process: "guard", Center: primary}
	t.Cleanup(func() { _, _ = f.Lab.Inject(context.WithoutCancel(t.Context()), cont) })
	f.inject(t, fault.Fault{Kind: fault.Stop, Process: "guard", Center: primary})
	first := f.order(t, "failover", application, "--to", standby)
	f.comesTo(t, first, v1alpha1.RunFencing)
	f.inject(t, fault.Fault{Kind: fault.PowerOff, Center: standby})
	f.inject(t, cont)
	f.comesTo(t, first, v1alpha1.RunPaused, "--instead-of "+first)

	next := f.order(t, "failover", application, "--instead-of", first, "--to", primary)
	f.comesTo(t, next, v1alpha1.RunAwaitingApproval, standby+" was named the primary before "+primary)
	asks, err := f.recoveryRun(t.Context(), next)
	if err != nil {
		t.Fatal(err)
	}
	if l := asks.Status.Loss; l == nil || l.Extent == v1alpha1.LossUnknown || l.Seconds > 60 {
		t.Fatalf("people are shown %+v: the target was lost at once", l)
	}
	says(t, must(t)(f.Tripodctl(t.Context(), "run", first)), "run "+next+" was ordered instead")
	must(t)(f.Tripodctl(t.Context(), "approve", next, "--accept-loss", strconv.FormatInt(asks.Status.Loss.Seconds, 10), "--kubeconfig", another))
	f.comesTo(t, next, v1alpha1.RunCompleted)
	f.comesTo(t, first, v1alpha1.RunAborted)
	if err := b.AwaitTransfers(t.Context(), 100, time.Minute); err != nil {
		t.Errorf("transfers on %s: %v", primary, err)
	}
	if verified, err := f.verifyEvidence(t.Context(), next); err != nil || !verified {
		t.Errorf("the evidence of %s: verified %t, %v", next, verified, err)
	}
	if err := f.Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	after := f.settled(t, primary, standby)
	if after.Status.Primary != primary || after.Status.Epoch != before.Status.Epoch+2 {
		t.Errorf("the primary is %s at epoch %d, want %s at %d", after.Status.Primary, after.Status.Epoch, primary, before.Status.Epoch+2)
	}
	audit(t, b)
}
