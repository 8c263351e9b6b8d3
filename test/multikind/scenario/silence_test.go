package scenario

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/test/multikind/fault"
	"tripod.dev/tripod/test/multikind/traffic"
)

// mute drops what a center's pods, its agents and guards among them, send to hub
// members and what these answer, as a firewall rule may that somebody rolled out. The hub's member of
// the center is no pod, and agents still reach each other.
const mute = `nft -f - <<'END'
table inet silence
delete table inet silence
table inet silence {
	chain forward { type filter hook forward priority -310; tcp dport { 6443, 6444 } drop; tcp sport { 6443, 6444 } drop; }
	chain input { type filter hook input priority -310; iifname != { "lo", "eth0" } tcp dport { 6443, 6444 } drop; }
	chain output { type filter hook output priority -310; oifname != { "lo", "eth0" } tcp sport { 6443, 6444 } drop; }
}
END`

const unmute = `nft -f - <<'END'
table inet silence
delete table inet silence
END`

// silence cuts a cluster off from the hub, and nothing else, until it is given
// back; at the latest at the end of the test. It returns since when.
func (f *Fleet) silence(t *testing.T, center string) fault.Effect {
	t.Helper()
	t.Cleanup(func() { f.unsilence(context.WithoutCancel(t.Context()), t, center) })
	f.inside(t.Context(), t, center, mute)
	effect := fault.Effect{Monotonic: time.Duration(traffic.Monotonic())}
	f.tell(fmt.Sprintf("the cluster of %s reaches no hub member since monotonic %.6f s", center, effect.Monotonic.Seconds()))
	return effect
}

func (f *Fleet) unsilence(ctx context.Context, t *testing.T, center string) {
	t.Helper()
	f.inside(ctx, t, center, unmute)
}

// others are the centers beside those.
func (f *Fleet) others(centers ...string) []string {
	var names []string
	for _, c := range f.Lab.Centers() {
		if !slices.Contains(centers, c.Name) {
			names = append(names, c.Name)
		}
	}
	return names
}

// pair is the primary's center and that of the synchronous copy, both protected and
// neither of them held.
func (f *Fleet) pair(t *testing.T) (primary, standby string, before *v1alpha1.Dataset) {
	t.Helper()
	d, err := f.Dataset(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	primary = d.Status.Primary
	for _, c := range f.others(primary, remoteCenter) {
		standby = c
	}
	if err := f.AwaitProtected(t.Context(), 3*time.Minute, primary, standby); err != nil {
		t.Fatal(err)
	}
	if before, err = f.Dataset(t.Context()); err != nil {
		t.Fatal(err)
	}
	return primary, standby, before
}

// cut cuts paths between pairs of centers, in both directions, and returns since when
// all of them are cut.
func (f *Fleet) cut(t *testing.T, paths ...[2]string) fault.Effect {
	t.Helper()
	var last fault.Effect
	var err error
	for _, p := range paths {
		if last, err = f.Inject(t.Context(), fault.Fault{Kind: fault.Cut, Center: p[0], Peer: p[1]}); err != nil {
			t.Fatal(err)
		}
	}
	return last
}

func (f *Fleet) heal(t *testing.T) fault.Effect {
	t.Helper()
	effect, err := f.Inject(t.Context(), fault.Fault{Kind: fault.Heal})
	if err != nil {
		t.Fatal(err)
	}
	return effect
}

// acknowledgedBetween counts transfers that were sent after one moment and
// acknowledged before the other.
func (b *Business) acknowledgedBetween(after, before time.Duration) (int, error) {
	records, err := traffic.ReadJournals(b.ledger.Config().Dir)
	if err != nil {
		return 0, err
	}
	sent := map[string]bool{}
	for _, r := range records {
		if r.Event == traffic.Sent && time.Duration(r.Monotonic) > after {
			sent[r.ID] = true
		}
	}
	n := 0
	for _, r := range records {
		if r.Event == traffic.Acknowledged && sent[r.ID] && time.Duration(r.Monotonic) < before {
			n++
		}
	}
	return n, nil
}

// runs are the names of the ledger's runs, whatever became of them.
func (f *Fleet) runs(ctx context.Context, avoid ...string) (map[string]v1alpha1.RecoveryRunStatus, error) {
	api, err := f.API(avoid...)
	if err != nil {
		return nil, err
	}
	var list v1alpha1.RecoveryRunList
	if err := api.List(ctx, &list); err != nil {
		return nil, err
	}
	runs := map[string]v1alpha1.RecoveryRunStatus{}
	for _, r := range list.Items {
		if r.Spec.Application.Namespace == "pay" {
			runs[r.Name] = r.Status
		}
	}
	return runs, nil
}

// newRuns are the runs that there are now and were not among before.
func (f *Fleet) newRuns(t *testing.T, before map[string]v1alpha1.RecoveryRunStatus) map[string]v1alpha1.RecoveryRunStatus {
	t.Helper()
	var now map[string]v1alpha1.RecoveryRunStatus
	err := f.await(t.Context(), time.Minute, "the runs can be listed", func(ctx context.Context) (missing string, err error) {
		now, err = f.runs(ctx)
		return "", err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range before {
		delete(now, name)
	}
	return now
}
