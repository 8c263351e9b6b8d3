package scenario

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"tripod.dev/tripod/deploy/ledger"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// S5: the link between the two synchronous centers is cut, and both reach the
// third. No role changes. What the primary does without its standby is decided
// once, by the hub: under ZeroLoss nothing is acknowledged until the link is back,
// under MaxAvailability one commit makes the sync set smaller.
func TestS5TheLinkBetweenTheSyncCentersIsCut(t *testing.T) {
	f := fleet(t)
	b := business(t, f)
	t.Run("ZeroLoss waits", func(t *testing.T) { zeroLossWaits(t, b) })
	t.Run("MaxAvailability shrinks the sync set once", func(t *testing.T) { shrinksOnce(t, b) })
	audit(t, b)
}

func zeroLossWaits(t *testing.T, b *Business) {
	f := b.fleet
	primary, standby, before := f.pair(t)
	if err := f.LeadFrom(t.Context(), primary); err != nil {
		t.Fatal(err)
	}
	if err := b.AwaitTransfers(t.Context(), 50, time.Minute); err != nil {
		t.Fatal(err)
	}
	// The standby's member is cut off from the leader: it is asked last.
	began := f.cut(t, [2]string{primary, standby})
	err := f.Throughout(t.Context(), 12*time.Second, "roles and the sync set stay", func(ctx context.Context) (string, error) {
		return firstWrong(ctx, unmoved(f, before, standby), sameSyncSet(f, before, standby))
	})
	if err != nil {
		t.Error(err)
	}
	ended := f.heal(t)
	if err := b.AwaitTransfers(t.Context(), 50, time.Minute); err != nil {
		t.Errorf("transfers after the link came back: %v", err)
	}
	n, err := b.acknowledgedBetween(began.Monotonic, ended.Monotonic)
	if err != nil {
		t.Fatal(err)
	}
	if n > 0 {
		t.Errorf("%d transfers were sent and acknowledged while no standby could have them", n)
	}
	if wrong, err := firstWrong(t.Context(), unmoved(f, before), sameSyncSet(f, before)); err != nil || wrong != "" {
		t.Errorf("after the link came back: %s %v", wrong, err)
	}
}

func shrinksOnce(t *testing.T, b *Business) {
	f := b.fleet
	t.Cleanup(func() { f.protect(context.WithoutCancel(t.Context()), t, v1alpha1.ZeroLoss) })
	f.protect(t.Context(), t, v1alpha1.MaxAvailability)
	primary, standby, before := f.pair(t)
	if err := f.LeadFrom(t.Context(), primary); err != nil {
		t.Fatal(err)
	}
	effect := f.cut(t, [2]string{primary, standby})
	if err := b.awaitAfter(t.Context(), effect.Monotonic, time.Minute); err != nil {
		t.Errorf("transfers without the standby: %v", err)
	}
	alone := func(ctx context.Context) (string, error) {
		d, err := f.Dataset(ctx, standby)
		if err != nil {
			return "", err
		}
		if !slices.Equal(d.Status.SyncSet, []string{primary}) || d.Status.SyncGeneration != before.Status.SyncGeneration+1 {
			return fmt.Sprintf("the sync set is %v at generation %d, it was %v at %d",
				d.Status.SyncSet, d.Status.SyncGeneration, before.Status.SyncSet, before.Status.SyncGeneration), nil
		}
		return "", nil
	}
	err := f.Throughout(t.Context(), 10*time.Second, "the sync set was made smaller once, and no role moves", func(ctx context.Context) (string, error) {
		return firstWrong(ctx, unmoved(f, before, standby), alone)
	})
	if err != nil {
		t.Error(err)
	}
	f.heal(t)
	if err := f.AwaitProtected(t.Context(), time.Minute, primary, standby); err != nil {
		t.Error(err)
	}
	d, err := f.Dataset(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d.Status.SyncGeneration != before.Status.SyncGeneration+2 {
		t.Errorf("the sync set has generation %d after the standby came back, it was %d before it left", d.Status.SyncGeneration, before.Status.SyncGeneration)
	}
	if wrong, err := unmoved(f, before)(t.Context()); err != nil || wrong != "" {
		t.Errorf("after the link came back: %s %v", wrong, err)
	}
}

// protect declares what the ledger's dataset wants when a synchronous copy is lost.
func (f *Fleet) protect(ctx context.Context, t *testing.T, p v1alpha1.Protection) {
	t.Helper()
	var clusters []ledger.Cluster
	for _, c := range f.Lab.Centers() {
		clusters = append(clusters, ledger.Cluster{Name: c.Name, Region: c.Region, Address: c.Address.String()})
	}
	manifests, err := ledger.Render(ledger.Params{Clusters: clusters})
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(manifests), "protection: "+string(v1alpha1.ZeroLoss), "protection: "+string(p), 1)
	must(t)(f.Kubectl(ctx, strings.NewReader(text), "--context", "hub", "apply", "--server-side", "-f", "-"))
}

type look = func(context.Context) (string, error)

// firstWrong is what the first of the looks finds wrong.
func firstWrong(ctx context.Context, looks ...look) (string, error) {
	for _, l := range looks {
		if wrong, err := l(ctx); err != nil || wrong != "" {
			return wrong, err
		}
	}
	return "", nil
}

// sameSyncSet says what is wrong when a dataset's committed sync set is another one
// than before. Hub members in avoid are asked last.
func sameSyncSet(f *Fleet, before *v1alpha1.Dataset, avoid ...string) look {
	return func(ctx context.Context) (string, error) {
		now, err := f.Dataset(ctx, avoid...)
		if err != nil {
			return "", err
		}
		if !slices.Equal(now.Status.SyncSet, before.Status.SyncSet) || now.Status.SyncGeneration != before.Status.SyncGeneration {
			return fmt.Sprintf("the sync set was %v at generation %d and is %v at %d",
				before.Status.SyncSet, before.Status.SyncGeneration, now.Status.SyncSet, now.Status.SyncGeneration), nil
		}
		return "", nil
	}
}

// S8: the hub's leader is in the minority when an operator orders a failover. The
// minority refuses, the majority accepts, and there is one run.
func TestS8TheLeaderIsInTheMinority(t *testing.T) {
	f := fleet(t)
	b := business(t, f)
	t.Run("with the primary well", func(t *testing.T) { orderBothSides(t, b, func(string) string { return remoteCenter }) })
	t.Run("with the primary in the minority too", func(t *testing.T) { orderBothSides(t, b, func(primary string) string { return primary }) })
	audit(t, b)
}

func orderBothSides(t *testing.T, b *Business, where func(primary string) string) {
	f := b.fleet
	primary, to, before := f.pair(t)
	minority := where(primary)
	if err := f.LeadFrom(t.Context(), minority); err != nil {
		t.Fatal(err)
	}
	if err := b.AwaitTransfers(t.Context(), 50, time.Minute); err != nil {
		t.Fatal(err)
	}
	known, err := f.runs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	effect, err := f.isolateFromCenters(t.Context(), minority)
	if err != nil {
		t.Fatal(err)
	}
	refused := make(chan error, 1)
	go func() {
		out, err := f.Tripodctl(t.Context(), "failover", application, "--to", to, "--detach", "--hub", f.address(minority))
		if err == nil {
			err = fmt.Errorf("the minority took the order: %s", out)
		} else {
			f.tell("the minority: " + err.Error())
			err = nil
		}
		refused <- err
	}()
	var majority []string
	for _, c := range f.others(minority) {
		majority = append(majority, f.address(c))
	}
	said := must(t)(f.Tripodctl(t.Context(), "failover", application, "--to", to, "--hub", strings.Join(majority, ",")))
	says(t, said, string(v1alpha1.RunCompleted), "from "+primary+" to "+to)
	if err := b.awaitAfter(t.Context(), effect.Monotonic, time.Minute); err != nil {
		t.Errorf("transfers on %s: %v", to, err)
	}
	if err := <-refused; err != nil {
		t.Error(err)
	}
	f.heal(t)
	if err := f.AwaitProtected(t.Context(), 3*time.Minute, primary, to); err != nil {
		t.Error(err)
	}
	// What the minority may have kept of the order would show by now.
	if runs := f.newRuns(t, known); len(runs) != 1 {
		t.Errorf("there are %d runs, want the one of the majority: %+v", len(runs), runs)
	}
	after, err := f.Dataset(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if after.Status.Primary != to || after.Status.Epoch != before.Status.Epoch+1 {
		t.Errorf("the primary is %s at epoch %d, want %s at %d", after.Status.Primary, after.Status.Epoch, to, before.Status.Epoch+1)
	}
}
