package scenario

import (
	"context"
	"fmt"
	"testing"
	"time"

	"tripod.dev/tripod/deploy/ledger"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

const breakerOpen = "tripod_failover_breaker_open"

// S12: most clusters fall silent at once, in several centers, while the hub is well.
// The breaker opens and raises the alarm, nothing moves, and nothing is deleted; a
// person may decide, and does.
func TestS12MostClustersAreSilentAtOnce(t *testing.T) {
	f := fleet(t)
	primary, standby, before := f.pair(t)
	placed, err := f.placedObjects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := f.LeadFrom(t.Context(), standby); err != nil {
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
	f.silence(t, remoteCenter)
	f.silence(t, primary)
	if err := f.awaitBreaker(t.Context(), 1); err != nil {
		t.Error(err)
	}
	if err := f.Throughout(t.Context(), 12*time.Second, "nothing moves and the alarm stays", func(ctx context.Context) (string, error) {
		return firstWrong(ctx, unmoved(f, before), f.breaker(1))
	}); err != nil {
		t.Error(err)
	}
	if runs := f.newRuns(t, known); len(runs) != 0 {
		t.Errorf("runs were started by themselves: %+v", runs)
	}
	said := must(t)(f.Tripodctl(t.Context(), "failover", ledger.Namespace+"/ledger", "--to", standby))
	says(t, said, string(v1alpha1.RunCompleted), "from "+primary+" to "+standby)
	if err := b.AwaitTransfers(t.Context(), 50, time.Minute); err != nil {
		t.Errorf("transfers on %s, which a person has chosen: %v", standby, err)
	}
	f.unsilence(t.Context(), t, primary)
	f.unsilence(t.Context(), t, remoteCenter)
	if err := f.AwaitClusters(t.Context()); err != nil {
		t.Error(err)
	}
	if err := f.AwaitProtected(t.Context(), 3*time.Minute, primary, standby); err != nil {
		t.Error(err)
	}
	if err := f.awaitBreaker(t.Context(), 0); err != nil {
		t.Errorf("after all clusters were heard again: %v", err)
	}
	nothingDeleted(t, f, placed)
	audit(t, b)
}

// S12, over two leaders: a cluster falls silent and is heard again under one, and the
// primary's falls silent under the next within the minute. That one knows it from its
// book of leases, and does not act.
func TestS12ALossThatHealedUnderTheLeaderBefore(t *testing.T) {
	f := fleet(t)
	primary, standby, before := f.pair(t)
	if err := f.LeadFrom(t.Context(), standby); err != nil {
		t.Fatal(err)
	}
	b := business(t, f)
	if err := b.AwaitTransfers(t.Context(), 50, time.Minute); err != nil {
		t.Fatal(err)
	}
	f.silence(t, remoteCenter)
	if err := f.await(t.Context(), 30*time.Second, remoteCenter+" counts as lost", f.lost(standby, remoteCenter)); err != nil {
		t.Fatal(err)
	}
	f.unsilence(t.Context(), t, remoteCenter)
	if err := f.AwaitClusters(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := f.LeadFrom(t.Context(), remoteCenter); err != nil {
		t.Fatal(err)
	}
	f.silence(t, primary)
	if err := f.awaitBreaker(t.Context(), 1); err != nil {
		t.Error(err)
	}
	if err := f.Throughout(t.Context(), 10*time.Second, "nothing moves and the alarm stays", func(ctx context.Context) (string, error) {
		return firstWrong(ctx, unmoved(f, before), f.breaker(1), f.lost(remoteCenter, remoteCenter))
	}); err != nil {
		t.Error(err)
	}
	f.unsilence(t.Context(), t, primary)
	if err := f.AwaitClusters(t.Context()); err != nil {
		t.Error(err)
	}
	if err := f.awaitBreaker(t.Context(), 0); err != nil {
		t.Errorf("after all clusters were heard again: %v", err)
	}
	audit(t, b)
}

// lost says that the member of a center, which leads, does not count a cluster of
// another as lost.
func (f *Fleet) lost(member, center string) look {
	return func(ctx context.Context) (string, error) {
		n, err := f.gauge(ctx, member, recentLosses(center))
		if err == nil && n == 0 {
			return "no cluster of " + center + " counts as lost", nil
		}
		return "", err
	}
}

// breaker says what is wrong when no member, or one when none should, has the alarm.
func (f *Fleet) breaker(want float64) look {
	return func(ctx context.Context) (string, error) {
		highest := 0.0
		for _, c := range f.Lab.Centers() {
			value, err := f.gauge(ctx, c.Name, breakerOpen)
			if err != nil {
				return "", err
			}
			highest = max(highest, value)
		}
		if highest != want {
			return fmt.Sprintf("%s is %g", breakerOpen, highest), nil
		}
		return "", nil
	}
}

func (f *Fleet) awaitBreaker(ctx context.Context, want float64) error {
	return f.await(ctx, 2*time.Minute, fmt.Sprintf("%s is %g", breakerOpen, want), f.breaker(want))
}
