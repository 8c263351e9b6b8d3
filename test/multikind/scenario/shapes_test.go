package scenario

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/deploy/ledger"
	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/test/multikind/fault"
)

// shape is one way to cut the paths among the primary's center (A), that of the
// synchronous copy (B) and the remote one (C), clients reaching all of them.
type shape struct {
	name       string
	ab, ac, bc bool
	// moves is true when B takes over; transfers, when they go on throughout.
	moves, transfers bool
}

// shapes are all eight; docs/scenarios.md says why each ends as it does.
var shapes = []shape{
	{name: "nothing is cut", transfers: true},
	{name: "A from B", ab: true},
	{name: "A from C", ac: true, transfers: true},
	{name: "B from C", bc: true, transfers: true},
	{name: "A alone", ab: true, ac: true, moves: true},
	{name: "B alone", ab: true, bc: true},
	{name: "C alone", ac: true, bc: true, transfers: true},
	{name: "everybody alone", ab: true, ac: true, bc: true},
}

// S6: every shape of a three-center partition. There is one writer at most, nothing
// that was acknowledged is lost, and only a majority that surely lost the primary
// moves it.
func TestS6EveryShapeOfAPartition(t *testing.T) {
	f := fleet(t)
	b := business(t, f)
	for _, s := range shapes {
		t.Run(s.name, func(t *testing.T) { partition(t, b, s) })
	}
	audit(t, b)
}

// partitionLasts is longer than a lease, its fence and a failover.
const partitionLasts = 12 * time.Second

func partition(t *testing.T, b *Business, s shape) {
	f := b.fleet
	primary, standby, before := f.pair(t)
	if err := b.AwaitTransfers(t.Context(), 50, time.Minute); err != nil {
		t.Fatal(err)
	}
	known, err := f.runs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var paths [][2]string
	for _, p := range []struct {
		is   bool
		path [2]string
	}{{s.ab, [2]string{primary, standby}}, {s.ac, [2]string{primary, remoteCenter}}, {s.bc, [2]string{standby, remoteCenter}}} {
		if p.is {
			paths = append(paths, p.path)
		}
	}
	effect := f.cut(t, paths...)
	if s.moves {
		if err := b.awaitAfter(t.Context(), effect.Monotonic, time.Minute); err != nil {
			t.Errorf("transfers on %s: %v", standby, err)
		}
	} else if err := f.outlive(t.Context(), partitionLasts); err != nil { // nobody may be there to be asked
		t.Fatal(err)
	}
	ended := f.heal(t)
	if s.transfers {
		if n, err := b.acknowledgedBetween(effect.Monotonic, ended.Monotonic); err != nil || n == 0 {
			t.Errorf("%d transfers were sent and acknowledged during the partition: %v", n, err)
		}
	}
	if err := b.AwaitTransfers(t.Context(), 50, 2*time.Minute); err != nil {
		t.Errorf("transfers after the partition: %v", err)
	}
	after := f.settled(t, primary, standby)
	want, epoch, runs := primary, before.Status.Epoch, 0
	if s.moves {
		want, epoch, runs = standby, before.Status.Epoch+1, 1
	}
	if after.Status.Primary != want || after.Status.Epoch != epoch {
		t.Errorf("the primary is %s at epoch %d, want %s at %d", after.Status.Primary, after.Status.Epoch, want, epoch)
	}
	if got := f.newRuns(t, known); len(got) != runs {
		t.Errorf("there are %d new runs, want %d: %+v", len(got), runs, got)
	}
}

// settled waits until everything is heard and the two copies are protected again.
func (f *Fleet) settled(t *testing.T, centers ...string) *v1alpha1.Dataset {
	t.Helper()
	if err := f.AwaitClusters(t.Context()); err != nil {
		t.Error(err)
	}
	if err := f.AwaitProtected(t.Context(), 3*time.Minute, centers...); err != nil {
		t.Error(err)
	}
	var d *v1alpha1.Dataset
	err := f.await(t.Context(), time.Minute, "the dataset is Steady", func(ctx context.Context) (missing string, err error) {
		if d, err = f.Dataset(ctx); err == nil && d.Status.Phase != v1alpha1.DatasetSteady {
			missing = "it is " + string(d.Status.Phase)
		}
		return missing, err
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// S20: the center of the new primary is cut off before the failover to it has
// settled: the old primary is back, and is in no sync set yet. Nothing moves by
// itself, nothing is lost, and the epochs grow one by one.
func TestS20ASecondFailoverBeforeTheFirstHasSettled(t *testing.T) {
	f := fleet(t)
	first, second, before := f.pair(t)
	if err := f.LeadFrom(t.Context(), remoteCenter); err != nil {
		t.Fatal(err)
	}
	b := business(t, f)
	if err := b.AwaitTransfers(t.Context(), 100, time.Minute); err != nil {
		t.Fatal(err)
	}
	effect, err := f.isolateFromCenters(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.awaitAfter(t.Context(), effect.Monotonic, time.Minute); err != nil {
		t.Fatal(err)
	}
	moved, err := f.Dataset(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	f.heal(t)
	if effect, err = f.isolateFromCenters(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	// The first center may have entered the sync set in time; then it may take over.
	err = f.Throughout(t.Context(), partitionLasts, "only a member of the committed sync set takes over", f.movesOnlyInto(moved, first, second))
	if err != nil {
		t.Error(err)
	}
	f.heal(t)
	if err := b.awaitAfter(t.Context(), effect.Monotonic, 2*time.Minute); err != nil {
		t.Errorf("transfers after the second partition: %v", err)
	}
	after := f.settled(t, first, second)
	if moved.Status.Primary != second || moved.Status.Epoch != before.Status.Epoch+1 || after.Status.Epoch < moved.Status.Epoch {
		t.Errorf("the primary was %s at epoch %d, then %s at %d, then %s at %d", before.Status.Primary, before.Status.Epoch,
			moved.Status.Primary, moved.Status.Epoch, after.Status.Primary, after.Status.Epoch)
	}
	audit(t, b)
}

// movesOnlyInto says what is wrong when another one than to takes over, or more than
// one epoch passes, or to does without having been in the sync set.
func (f *Fleet) movesOnlyInto(from *v1alpha1.Dataset, to, avoid string) look {
	waited := false // to was in the sync set of the primary
	return func(ctx context.Context) (string, error) {
		now, err := f.Dataset(ctx, avoid)
		if err != nil {
			return "", err
		}
		s := now.Status
		if s.Primary == from.Status.Primary && s.Epoch == from.Status.Epoch {
			waited = waited || slices.Contains(s.SyncSet, to)
			return "", nil
		}
		if s.Primary != to || s.Epoch != from.Status.Epoch+1 || !waited {
			return "the primary is " + s.Primary + ", and whether it was in the sync set before: " + map[bool]string{true: "yes", false: "no"}[waited], nil
		}
		return "", nil
	}
}

// S21: the hub's leader dies at each step boundary of an automatic failover. No step
// is skipped, none has its effect twice: one run, one epoch, one writer.
func TestS21TheLeaderDiesDuringAFailover(t *testing.T) {
	f := fleet(t)
	b := business(t, f)
	t.Run("the moment it falls silent", func(t *testing.T) { killAtBoundary(t, b, "") })
	t.Run("the moment it falls silent, and stays away", func(t *testing.T) { killWitness(t, b) })
	for _, phase := range []v1alpha1.RunPhase{v1alpha1.RunPromoting, v1alpha1.RunVerifying, v1alpha1.RunCompleted} {
		t.Run("at "+string(phase), func(t *testing.T) { killAtBoundary(t, b, phase) })
	}
	audit(t, b)
}

// killAtBoundary silences the primary's cluster, whose hub member stays, and kills the
// leader as soon as the run is seen at phase or past it; without a phase at once, long
// before anyone can tell a loss.
func killAtBoundary(t *testing.T, b *Business, phase v1alpha1.RunPhase) {
	f := b.fleet
	primary, standby, before := f.pair(t)
	if err := f.LeadFrom(t.Context(), remoteCenter); err != nil {
		t.Fatal(err)
	}
	if err := b.AwaitTransfers(t.Context(), 50, time.Minute); err != nil {
		t.Fatal(err)
	}
	known, err := f.runs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.silence(t, primary)
	if phase != "" {
		f.awaitPhase(t, known, phase)
	}
	f.inject(t, fault.Fault{Kind: fault.Kill, Process: "hub", Center: remoteCenter})
	if phase == "" {
		// Started again at once: a loss is confirmed from two other centers.
		f.inject(t, fault.Fault{Kind: fault.PowerOn, Center: remoteCenter})
	}
	b.takenOver(t, primary, standby, before)
	runs := f.newRuns(t, known)
	if len(runs) != 1 {
		t.Errorf("there are %d new runs, want one: %+v", len(runs), runs)
	}
	for name := range runs {
		if verified, err := f.verifyEvidence(t.Context(), name); err != nil || !verified {
			t.Errorf("the evidence of %s is verified: %t %v", name, verified, err)
		}
	}
}

// killWitness silences the primary's cluster and kills the leader for good: of two
// other centers only one can confirm the loss. Nothing moves, and the application says
// why; when the member is back, it moves.
func killWitness(t *testing.T, b *Business) {
	f := b.fleet
	primary, standby, before := f.pair(t)
	if err := f.LeadFrom(t.Context(), remoteCenter); err != nil {
		t.Fatal(err)
	}
	f.silence(t, primary)
	f.inject(t, fault.Fault{Kind: fault.Kill, Process: "hub", Center: remoteCenter})
	err := f.await(t.Context(), 30*time.Second, "the application says why nothing moves", func(ctx context.Context) (string, error) {
		api, err := f.API(remoteCenter)
		if err != nil {
			return "", err
		}
		var app v1alpha1.Application
		if err := api.Get(ctx, client.ObjectKey{Namespace: ledger.Namespace, Name: "ledger"}, &app); err != nil {
			return "", err
		}
		ready := meta.FindStatusCondition(app.Status.Conditions, v1alpha1.ConditionReady)
		if ready == nil || ready.Reason != "NotActing" || !strings.Contains(ready.Message, "only 1 of 2 centers other than "+primary) {
			return fmt.Sprintf("it says %+v", ready), nil
		}
		return "", nil
	})
	if err != nil {
		t.Error(err)
	}
	if err := f.Throughout(t.Context(), partitionLasts, "nothing moves on the word of one center", unmoved(f, before, remoteCenter)); err != nil {
		t.Error(err)
	}
	f.inject(t, fault.Fault{Kind: fault.PowerOn, Center: remoteCenter})
	b.takenOver(t, primary, standby, before)
}

// takenOver waits until standby is the primary in place of the silent one, which may
// acknowledge for as long as its lease lasts, and checks that it took one epoch when
// all is heard and repaired again.
func (b *Business) takenOver(t *testing.T, primary, standby string, before *v1alpha1.Dataset) {
	t.Helper()
	f := b.fleet
	f.awaitPrimary(t, standby)
	if err := b.AwaitTransfers(t.Context(), 50, time.Minute); err != nil {
		t.Errorf("transfers on %s: %v", standby, err)
	}
	f.unsilence(t.Context(), t, primary)
	if err := f.Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	after := f.settled(t, primary, standby)
	if after.Status.Primary != standby || after.Status.Epoch != before.Status.Epoch+1 {
		t.Errorf("the primary is %s at epoch %d, want %s at %d", after.Status.Primary, after.Status.Epoch, standby, before.Status.Epoch+1)
	}
}

func (f *Fleet) awaitPrimary(t *testing.T, center string) {
	t.Helper()
	err := f.await(t.Context(), time.Minute, "the primary is "+center, func(ctx context.Context) (string, error) {
		d, err := f.Dataset(ctx)
		if err == nil && (d.Status.Primary != center || d.Status.Phase != v1alpha1.DatasetSteady) {
			return "it is " + d.Status.Primary + ", the dataset is " + string(d.Status.Phase), nil
		}
		return "", err
	})
	if err != nil {
		t.Error(err)
	}
}

// awaitPhase waits until a run that was not known is at phase, or past it: a run is
// faster than a look. Which boundary was struck the log tells.
func (f *Fleet) awaitPhase(t *testing.T, known map[string]v1alpha1.RecoveryRunStatus, phase v1alpha1.RunPhase) {
	t.Helper()
	order := []v1alpha1.RunPhase{v1alpha1.RunPending, v1alpha1.RunPreflight, v1alpha1.RunFencing, v1alpha1.RunPromoting, v1alpha1.RunRouting,
		v1alpha1.RunVerifying, v1alpha1.RunCompleted}
	err := f.await(t.Context(), time.Minute, "the run is at "+string(phase), func(ctx context.Context) (string, error) {
		runs, err := f.runs(ctx)
		if err != nil {
			return "", err
		}
		for name, status := range runs {
			if _, old := known[name]; !old && slices.Index(order, status.Phase) >= slices.Index(order, phase) {
				f.tell(name + " is at " + string(status.Phase))
				return "", nil
			}
		}
		return "it is not there yet", nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
