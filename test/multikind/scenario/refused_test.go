package scenario

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"tripod.dev/tripod/deploy/ledger"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

const approval = `{"apiVersion":"tripod.dev/v1alpha1","kind":"Approval","metadata":{"generateName":"s26-"},
"spec":{"run":%q,"decision":%q,"acceptLoss":{"seconds":100000}}}`

// S26: who asked for a run cannot approve it, not even in somebody else's name; it
// is refused with the reason and audited, and nothing moves. Another person's word
// counts.
func TestS26ApprovalsThatDoNotCount(t *testing.T) {
	f := fleet(t)
	before, err := f.Dataset(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ordered := must(t)(f.Tripodctl(t.Context(), "failover", ledger.Namespace+"/ledger", "--to", remoteCenter, "--detach"))
	run := strings.TrimSpace(strings.TrimPrefix(ordered, "run "))
	t.Cleanup(func() { drop(t, f, "hub", "recoveryrun/"+run) })
	await := func(phase v1alpha1.RunPhase) {
		t.Helper()
		must(t)(f.Kubectl(t.Context(), nil, "--context", "hub", "wait", "recoveryrun/"+run, "--for", "jsonpath={.status.phase}="+string(phase), "--timeout", "30s"))
	}
	await(v1alpha1.RunAwaitingApproval)
	_, err = f.Tripodctl(t.Context(), "approve", run, "--accept-loss", "100000")
	saysError(t, err, "tripod:admin", "asked for run", run, "another person has to")
	bob := f.somebodyElse(t)
	approve := func(decision string, as ...string) error {
		_, err := f.Kubectl(t.Context(), strings.NewReader(fmt.Sprintf(approval, run, decision)), append([]string{"--context", "hub", "create", "-f", "-"}, as...)...)
		return err
	}
	saysError(t, approve("Approve", "--as", "bob", "--as-group", "system:masters"), "do not impersonate")
	f.audited(t, run)
	if wrong, err := unmoved(f, before)(t.Context()); err != nil || wrong != "" {
		t.Errorf("after approvals that do not count: %s %v", wrong, err)
	}
	if err := approve("Reject", "--kubeconfig", bob); err != nil {
		t.Fatal(err)
	}
	await(v1alpha1.RunAborted)
	if wrong, err := unmoved(f, before)(t.Context()); err != nil || wrong != "" {
		t.Errorf("after the run was rejected: %s %v", wrong, err)
	}
}

// somebodyElse is the kubeconfig of another identity that may approve.
func (f *Fleet) somebodyElse(t *testing.T) string {
	t.Helper()
	t.Cleanup(func() { drop(t, f, "hub", "clusterrolebinding/s26", "clusterrole/s26", "namespace/s26") })
	for _, create := range [][]string{
		{"namespace", "s26"},
		{"clusterrole", "s26", "--verb", "create,approve", "--resource", "approvals.tripod.dev,recoveryruns.tripod.dev"},
		{"clusterrolebinding", "s26", "--clusterrole", "s26", "--serviceaccount", "s26:bob"},
	} {
		must(t)(f.Kubectl(t.Context(), nil, append([]string{"--context", "hub", "create"}, create...)...))
	}
	return serviceAccountKubeconfig(t, f, "s26", "bob")
}

// audited waits until some member's audit log has a refused approval of run.
func (f *Fleet) audited(t *testing.T, run string) {
	t.Helper()
	err := f.await(t.Context(), 20*time.Second, "the refusals are audited", func(ctx context.Context) (string, error) {
		for _, c := range f.Lab.Centers() {
			command, err := f.Lab.Command(ctx, c.Name, "grep", "-h", `"resource":"approvals"`, "/var/lib/tripod-hub/data/apiserver/audit/audit.log")
			if err != nil {
				return "", err
			}
			found, _ := command.Output() // grep fails when there is none
			for line := range strings.Lines(string(found)) {
				if strings.Contains(line, `"code":403`) && strings.Contains(line, run) {
					return "", nil
				}
			}
		}
		return "no member has it", nil
	})
	if err != nil {
		t.Error(err)
	}
}

// saysError fails the test unless err is one that says every one of wants.
func saysError(t *testing.T, err error, wants ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("not refused: want an error with %q", wants)
		return
	}
	says(t, err.Error(), wants...)
}
