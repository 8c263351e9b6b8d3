package scenario

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/test/multikind/fault"
	"tripod.dev/tripod/test/multikind/validate"
)

// S16: nothing proves that the old primary has stopped: its guard stood still when its
// center lost power, so that time proves nothing. The run pauses and says so. One
// person's oath is not enough, nor the same person's twice, nor one about another
// cluster; two people's is. The evidence names both.
func TestS16TwoPeopleAttest(t *testing.T) {
	f := fleet(t)
	people := f.people(t, "bob", "carol")
	b := deployArchive(t, f)
	if err := f.LeadFrom(t.Context(), "north-2"); err != nil {
		t.Fatal(err)
	}
	if err := b.AwaitTransfers(t.Context(), 100, time.Minute); err != nil {
		t.Fatal(err)
	}
	effect := f.loseUnguarded(t)
	run := awaitQuestion(t, f)
	asked, err := f.archiveRun(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	must(t)(f.Tripodctl(t.Context(), "approve", run, "--accept-loss", strconv.FormatInt(asked.Status.Loss.Seconds, 10)))
	if err := f.awaitRun(t.Context(), run, v1alpha1.RunPaused); err != nil {
		t.Fatal(err)
	}
	said := must(t)(f.Tripodctl(t.Context(), "run", run))
	says(t, said, "FenceUnproven", "nothing proves that it has stopped", "tripodctl attest "+run)
	f.attests(t, run, people)
	if err := f.awaitRun(t.Context(), run, v1alpha1.RunCompleted); err != nil {
		t.Fatal(err)
	}
	if err := b.awaitAfter(t.Context(), effect.Monotonic, time.Minute); err != nil {
		t.Errorf("transfers on %s: %v", remoteCenter, err)
	}
	says(t, must(t)(f.Tripodctl(t.Context(), "run", run)), string(v1alpha1.FenceAttested), "s16:bob", "s16:carol")
	if verified, err := f.verifyEvidence(t.Context(), run); err != nil || !verified {
		t.Errorf("the evidence of %s: verified %t, %v", run, verified, err)
	}
	auditArchive(t, b)
	if err := f.Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	archiveReturns(t, f)
}

// people are the kubeconfigs of identities that may attest.
func (f *Fleet) people(t *testing.T, names ...string) []string {
	t.Helper()
	drop(t, f, "hub", "clusterrolebinding/s16", "clusterrole/s16")
	t.Cleanup(func() { drop(t, f, "hub", "clusterrolebinding/s16", "clusterrole/s16", "namespace/s16") })
	commands := [][]string{
		{"namespace", "s16"},
		{"clusterrole", "s16", "--verb", "get,list,create,approve", "--resource", "approvals.tripod.dev,recoveryruns.tripod.dev"},
		{"clusterrolebinding", "s16", "--clusterrole", "s16", "--group", "system:serviceaccounts:s16"},
	}
	for _, create := range commands {
		must(t)(f.Kubectl(t.Context(), nil, append([]string{"--context", "hub", "create"}, create...)...))
	}
	var all []string
	for _, name := range names {
		all = append(all, serviceAccountKubeconfig(t, f, "s16", name))
	}
	return all
}

// loseUnguarded lets the archive's guard stand still until the hub knows that, and then
// cuts the power of its center.
func (f *Fleet) loseUnguarded(t *testing.T) fault.Effect {
	t.Helper()
	f.inject(t, fault.Fault{Kind: fault.Stop, Process: "guard", Center: archiveHome})
	err := f.await(t.Context(), 30*time.Second, "the hub knows that nobody guards the archive", func(ctx context.Context) (string, error) {
		d, err := f.archiveDataset(ctx)
		if err != nil {
			return "", err
		}
		if m := memberOf(d, archiveHome); m == nil || m.Guarded != v1alpha1.Unguarded {
			return fmt.Sprintf("%+v", m), nil
		}
		return "", nil
	})
	if err != nil {
		t.Fatal(err)
	}
	effect, err := f.Inject(t.Context(), fault.Fault{Kind: fault.PowerOff, Center: archiveHome})
	if err != nil {
		t.Fatal(err)
	}
	return effect
}

// attests lets two people swear, and shows that less does not count.
func (f *Fleet) attests(t *testing.T, run string, people []string) {
	t.Helper()
	attest := func(person string, more ...string) (string, error) {
		return f.Tripodctl(t.Context(), append([]string{"attest", run, "--kubeconfig", person, "--hub", f.address("north-2")}, more...)...)
	}
	_, err := attest(people[0])
	saysError(t, err, "nothing was sworn")
	_, err = attest(people[0], "--powered-off", remoteCenter)
	saysError(t, err, "waits for the stop of ["+archiveHome+"]", remoteCenter)
	for range 2 {
		says(t, must(t)(attest(people[0], "--powered-off", archiveHome, "--comment", "I stand in front of it")), "WITHOUT POWER", "s16:bob swears")
	}
	err = f.Throughout(t.Context(), 5*time.Second, "one person's word is not enough", func(ctx context.Context) (string, error) {
		r, err := f.archiveRun(ctx)
		if err == nil && r.Status.Phase != v1alpha1.RunPaused {
			return fmt.Sprintf("the run is %s: %s", r.Status.Phase, r.Status.Message), nil
		}
		return "", err
	})
	if err != nil {
		t.Error(err)
	}
	says(t, must(t)(attest(people[1], "--powered-off", archiveHome)), "s16:carol swears")
}

// auditArchive counts what the promoted copy far away has. What it lacks was sent in
// the moment of the loss.
func auditArchive(t *testing.T, b *Business) {
	t.Helper()
	if err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	records, copied := b.archiveCopy(t)
	report := validate.Audit(records, []validate.Copy{copied}, b.ledger.Config().Total())
	counted := report
	b.audited = &counted
	t.Logf("audit: %+v", report)
	report.Lost = 0
	if err := report.Err(); err != nil {
		t.Error(err)
	}
}
