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

// S10: all hub members die. Primaries go on for as long as their standbys pledge, and
// end at their deadline when a pledge is missing; after the restart nothing is lost,
// moved or deleted.
func TestS10AllHubMembersDie(t *testing.T) {
	f := fleet(t)
	before := awaitPledges(t, f)
	b := business(t, f)
	if err := b.AwaitTransfers(t.Context(), 50, time.Minute); err != nil {
		t.Fatal(err)
	}
	placed, err := f.placedObjects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// The hub's DNS dies with it: a session that is open needs none.
	session, err := b.OpenSession(t.Context(), before.Status.Primary)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	for _, c := range f.Lab.Centers() {
		f.inject(t, fault.Fault{Kind: fault.Kill, Process: "hub", Center: c.Name})
	}
	if err := f.Throughout(t.Context(), 5*leaseTTL, "the primary acknowledges without a hub", session.acknowledges); err != nil {
		t.Error(err)
	}
	f.inject(t, fault.Fault{Kind: fault.Cut, Center: before.Status.Primary, Peer: standbyOf(before)})
	mustEnd(t, b, before.Status.Primary)
	f.inject(t, fault.Fault{Kind: fault.Heal})
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
	nothingDeleted(t, f, placed)
	if err := f.AwaitApplication(t.Context(), 2*time.Minute); err != nil {
		t.Error(err)
	}
	audit(t, b)
}

// leaseTTL is the lease's in the default profile.
const leaseTTL = 5 * time.Second

// awaitPledges waits until it is committed that pledges may keep the primary, and a
// moment longer, so that a grant has told it.
func awaitPledges(t *testing.T, f *Fleet) *v1alpha1.Dataset {
	t.Helper()
	var d *v1alpha1.Dataset
	err := f.await(t.Context(), time.Minute, "pledges may keep the primary, which has a standby", func(ctx context.Context) (missing string, err error) {
		if d, err = f.Dataset(ctx); err != nil {
			return "", err
		}
		if !d.Status.Failsafe || standbyOf(d) == "" {
			return fmt.Sprintf("failsafe %t, sync set %v", d.Status.Failsafe, d.Status.SyncSet), nil
		}
		return "", nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.outlive(t.Context(), leaseTTL); err != nil {
		t.Fatal(err)
	}
	return d
}

// standbyOf is the member of the sync set beside the primary.
func standbyOf(d *v1alpha1.Dataset) string {
	for _, name := range d.Status.SyncSet {
		if name != d.Status.Primary {
			return name
		}
	}
	return ""
}

// mustEnd waits until the database of a center takes no connection any more, which
// must be within a lease's length.
func mustEnd(t *testing.T, b *Business, center string) {
	t.Helper()
	began := time.Now()
	err := b.fleet.await(t.Context(), 3*leaseTTL, "the primary has stopped", func(ctx context.Context) (string, error) {
		conn, err := b.dial(ctx, center)
		if err != nil {
			return "", nil
		}
		return "it takes connections", conn.Close(ctx)
	})
	if err != nil {
		t.Errorf("without a hub and without a pledge: %v", err)
		return
	}
	if took := time.Since(began); took > leaseTTL+time.Second {
		t.Errorf("the primary stopped %v after its standby was cut off, a pledge is for %v", took, leaseTTL)
	}
	t.Logf("the primary stopped %v after its standby was cut off", time.Since(began))
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
