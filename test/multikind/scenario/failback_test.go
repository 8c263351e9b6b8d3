package scenario

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"tripod.dev/tripod/deploy/ledger"
	"tripod.dev/tripod/test/multikind/fault"
)

const application = ledger.Namespace + "/ledger"

// S18: home loses power and comes back, and fails again in its hold time. A failback is
// refused while home is away and while it is held; the second failure begins the hold
// anew and moves nothing; a person's hold is respected; then the failback goes home.
func TestS18FailbackAndHolds(t *testing.T) {
	f := fleet(t)
	home := f.goHome(t)
	_, away, before := f.pair(t)
	b := business(t, f)
	f.holdFor(t, 45)
	if err := f.LeadFrom(t.Context(), remoteCenter); err != nil {
		t.Fatal(err)
	}
	result, err := b.LosePrimary(t.Context(), false)
	if err != nil {
		t.Fatalf("lose home: %v", err)
	}
	if result.Lost != home || result.Promoted != away {
		t.Fatalf("%s took over from %s, want %s from %s", result.Promoted, result.Lost, away, home)
	}
	f.failbackRefused(t, "HomeNotHealthy", home)
	if err := f.Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := f.AwaitClusters(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.failbackRefused(t, "Held", home)
	held := f.heldSince(t, home)
	f.failsAgain(t, b, home, held)
	f.failbackRefused(t, "Held", home)
	f.holdFor(t, 15)
	f.settled(t, home, away)
	says(t, must(t)(f.Tripodctl(t.Context(), "hold", home, "--until", "1h", "--reason", "power works")), "cluster "+home+" is held until")
	t.Cleanup(func() { _, _ = f.Tripodctl(context.WithoutCancel(t.Context()), "hold", home, "--clear") })
	f.failbackRefused(t, "Held", "held by a person (power works", "tripodctl hold "+home+" --clear")
	says(t, must(t)(f.Tripodctl(t.Context(), "hold", home, "--clear")), "is not held by anybody")
	if err := b.AwaitTransfers(t.Context(), 100, time.Minute); err != nil {
		t.Error(err)
	}
	said := must(t)(f.Tripodctl(t.Context(), "failback", application))
	says(t, said, "Completed", "nothing is missing")
	t.Log(said)
	if err := b.AwaitTransfers(t.Context(), 100, time.Minute); err != nil {
		t.Errorf("transfers at home: %v", err)
	}
	after := f.settled(t, home, away)
	if after.Status.Primary != home || after.Status.Epoch != before.Status.Epoch+2 {
		t.Errorf("the primary is %s at epoch %d, want %s at %d: one failover, one failback", after.Status.Primary, after.Status.Epoch, home, before.Status.Epoch+2)
	}
	if _, err := f.Tripodctl(t.Context(), "failback", application); err == nil || !strings.Contains(err.Error(), "is at home") {
		t.Errorf("a failback of what is at home: %v", err)
	}
	audit(t, b)
}

// goHome moves the ledger to its home, if it is elsewhere, and returns that.
func (f *Fleet) goHome(t *testing.T) string {
	t.Helper()
	primary, _, d := f.pair(t)
	if home := d.Home(); home != primary {
		says(t, must(t)(f.Tripodctl(t.Context(), "switchover", application, "--to", home)), "Completed")
		f.settled(t, home, primary)
	}
	return d.Home()
}

// holdFor sets the application's hold time; it is the manifest's again after the test.
func (f *Fleet) holdFor(t *testing.T, seconds int) {
	t.Helper()
	patch := func(ctx context.Context, seconds int) error {
		_, err := f.Kubectl(ctx, nil, "--context", "hub", "-n", ledger.Namespace, "patch", "application", "ledger", "--type", "merge",
			"-p", fmt.Sprintf(`{"spec":{"failover":{"holdSeconds":%d}}}`, seconds))
		return err
	}
	t.Cleanup(func() {
		if err := patch(context.WithoutCancel(t.Context()), 15); err != nil {
			t.Error(err)
		}
	})
	if err := patch(t.Context(), seconds); err != nil {
		t.Fatal(err)
	}
}

// failbackRefused orders a failback that must end without a move, for the reason.
func (f *Fleet) failbackRefused(t *testing.T, reason string, wants ...string) {
	t.Helper()
	before, err := f.Dataset(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	said, err := f.Tripodctl(t.Context(), "failback", application)
	if err != nil {
		said += err.Error()
	}
	says(t, said, append(wants, "Aborted", reason, "nothing was changed")...)
	if wrong, err := unmoved(f, before)(t.Context()); err != nil || wrong != "" {
		t.Errorf("after a failback that was refused: %s %v", wrong, err)
	}
}

// heldSince is since when a center is held after a change.
func (f *Fleet) heldSince(t *testing.T, center string) time.Time {
	t.Helper()
	d, err := f.Dataset(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m := memberOf(d, center)
	if m == nil || m.HeldSince == nil {
		t.Fatalf("%s is not held: %s", center, states(d))
	}
	return m.HeldSince.Time
}

// failsAgain cuts the power of a center that is held, and waits until it is back with
// a hold that began anew.
func (f *Fleet) failsAgain(t *testing.T, b *Business, center string, held time.Time) {
	t.Helper()
	before, err := f.Dataset(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.inject(t, fault.Fault{Kind: fault.PowerOff, Center: center})
	err = f.await(t.Context(), time.Minute, "the hold of "+center+" begins anew", func(ctx context.Context) (string, error) {
		d, err := f.Dataset(ctx, center)
		if err != nil {
			return "", err
		}
		if m := memberOf(d, center); m == nil || m.HeldSince == nil || !m.HeldSince.After(held) {
			return states(d), nil
		}
		return "", nil
	})
	if err != nil {
		t.Error(err)
	}
	if wrong, err := unmoved(f, before, center)(t.Context()); err != nil || wrong != "" {
		t.Errorf("while home is away again: %s %v", wrong, err)
	}
	if err := f.Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := f.AwaitClusters(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.AwaitTransfers(t.Context(), 50, 2*time.Minute); err != nil {
		t.Errorf("transfers after home failed again: %v", err)
	}
}
