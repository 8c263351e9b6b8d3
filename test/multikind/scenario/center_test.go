package scenario

import (
	"context"
	"fmt"
	"testing"
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/test/multikind/fault"
)

// S1: a center loses power, the sync copy is good. Automatic, nothing lost,
// never two writers, RTO within the objective.
func TestS1CenterLosesPower(t *testing.T) {
	losePrimary(t, false)
}

// S2: the center that is lost also holds the hub's leader. As S1.
func TestS2CenterWithTheHubsLeaderLosesPower(t *testing.T) {
	losePrimary(t, true)
}

func losePrimary(t *testing.T, leader bool) {
	f := fleet(t)
	if !leader {
		if err := f.LeadFrom(t.Context(), remoteCenter); err != nil {
			t.Fatal(err)
		}
	}
	b := business(t, f)
	result, err := b.LosePrimary(t.Context(), leader)
	if err != nil {
		t.Fatalf("lose the primary's center: %v", err)
	}
	t.Logf("result: %+v", result)
	if !result.EvidenceVerified {
		t.Errorf("the evidence of %s could not be verified", result.Run)
	}
	if result.Promoted == remoteCenter {
		t.Errorf("%s was promoted: an asynchronous copy, without an approval", result.Promoted)
	}
	if err := b.AwaitTransfers(t.Context(), 100, time.Minute); err != nil {
		t.Error(err)
	}
	if err := b.Restore(t.Context(), result); err != nil {
		t.Fatalf("restore the lost center: %v", err)
	}
	audit(t, b)
}

const remoteCenter = "south-1"

// S4: the hub's leader cannot reach a cluster, the cluster reaches the hub and
// its users. One vantage is not enough: nothing happens.
func TestS4OneWayPartition(t *testing.T) {
	f := fleet(t)
	before, err := f.Dataset(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := f.LeadFrom(t.Context(), remoteCenter); err != nil {
		t.Fatal(err)
	}
	b := business(t, f)
	if err := b.AwaitTransfers(t.Context(), 50, time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Inject(t.Context(), fault.Fault{Kind: fault.Cut, Center: remoteCenter, Peer: before.Status.Primary, OneWay: true}); err != nil {
		t.Fatal(err)
	}
	err = f.Throughout(t.Context(), 15*time.Second, "the primary keeps its role", unmoved(f, before, before.Status.Primary))
	if err != nil {
		t.Error(err)
	}
	if err := b.AwaitTransfers(t.Context(), 50, time.Minute); err != nil {
		t.Errorf("transfers during the partition: %v", err)
	}
	if _, err := f.Inject(t.Context(), fault.Fault{Kind: fault.Heal}); err != nil {
		t.Fatal(err)
	}
	audit(t, b)
}

// unmoved says what is wrong when a dataset's primary or epoch is another than
// before. Hub members in avoid are asked last.
func unmoved(f *Fleet, before *v1alpha1.Dataset, avoid ...string) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		now, err := f.Dataset(ctx, avoid...)
		if err != nil {
			return "", err
		}
		if now.Status.Primary != before.Status.Primary || now.Status.Epoch != before.Status.Epoch {
			return fmt.Sprintf("the primary was %s at epoch %d and is %s at epoch %d (%s)",
				before.Status.Primary, before.Status.Epoch, now.Status.Primary, now.Status.Epoch, now.Status.Phase), nil
		}
		return "", nil
	}
}

// S10 without failsafe: all hub members die. Primaries may stop, nothing is
// lost or moved; after the restart nothing is deleted.
func TestS10AllHubMembersDie(t *testing.T) {
	f := fleet(t)
	before, err := f.Dataset(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := business(t, f)
	if err := b.AwaitTransfers(t.Context(), 50, time.Minute); err != nil {
		t.Fatal(err)
	}
	placed, err := f.placedObjects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range f.Lab.Centers() {
		if _, err := f.Inject(t.Context(), fault.Fault{Kind: fault.Kill, Process: "hub", Center: c.Name}); err != nil {
			t.Fatal(err)
		}
	}
	// Longer than a lease: every role has ended by the guards' own clocks.
	if err := f.outlive(t.Context(), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if err := f.Repair(t.Context()); err != nil {
		t.Fatalf("repair the hub: %v", err)
	}
	if err := f.AwaitClusters(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.AwaitTransfers(t.Context(), 50, 2*time.Minute); err != nil {
		t.Fatalf("transfers after the restart: %v", err)
	}
	if wrong, err := unmoved(f, before)(t.Context()); err != nil || wrong != "" {
		t.Errorf("after the restart: %s %v", wrong, err)
	}
	after, err := f.placedObjects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for uid, object := range placed {
		if after[uid] == "" {
			t.Errorf("%s was deleted (or made anew) after the hub's restart", object)
		}
	}
	if err := f.AwaitApplication(t.Context(), 2*time.Minute); err != nil {
		t.Error(err)
	}
	audit(t, b)
}

// S15: the old primary returns with sessions that were open before. None of its
// writes is acknowledged; it becomes a replica.
func TestS15OldPrimaryReturns(t *testing.T) {
	f := fleet(t)
	before, err := f.Dataset(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	old := before.Status.Primary
	b := business(t, f)
	if err := b.AwaitTransfers(t.Context(), 100, time.Minute); err != nil {
		t.Fatal(err)
	}
	session, err := b.OpenSession(t.Context(), old)
	if err != nil {
		t.Fatalf("open a session to the old primary: %v", err)
	}
	defer session.Close()
	// Cut off from the other centers but not from this client, which keeps its
	// session to the old primary.
	effect, err := f.isolateFromCenters(t.Context(), old)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.awaitAfter(t.Context(), effect.Monotonic, time.Minute); err != nil {
		t.Fatalf("transfers on the new primary: %v", err)
	}
	if err := session.Write(t.Context()); err == nil {
		t.Error("the old primary acknowledged a write on a session that was open before, after the new primary had begun")
	}
	if _, err := f.Inject(t.Context(), fault.Fault{Kind: fault.Heal}); err != nil {
		t.Fatal(err)
	}
	if err := session.Write(t.Context()); err == nil {
		t.Error("the old primary acknowledged a write after it returned")
	}
	if err := f.AwaitProtected(t.Context(), 3*time.Minute, old); err != nil {
		t.Fatalf("the old primary becomes a replica: %v", err)
	}
	audit(t, b)
}
