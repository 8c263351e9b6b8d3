package apiserver

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
)

var (
	datasetsResource  = schema.GroupVersionResource{Group: "tripod.dev", Version: "v1alpha1", Resource: "datasets"}
	runsResource      = schema.GroupVersionResource{Group: "tripod.dev", Version: "v1alpha1", Resource: "recoveryruns"}
	approvalsResource = schema.GroupVersionResource{Group: "tripod.dev", Version: "v1alpha1", Resource: "approvals"}
)

func tokenRequest() *authenticationv1.TokenRequest { return &authenticationv1.TokenRequest{} }

func selfReview() *authenticationv1.SelfSubjectReview { return &authenticationv1.SelfSubjectReview{} }

func datasetText(name, driver string) string {
	return "{apiVersion: tripod.dev/v1alpha1, kind: Dataset, metadata: {name: " + name + "}, spec: {driver: " + driver + ", members: [{cluster: north-1}]}}"
}

func testUnknownDriver(t *testing.T, h *hub) {
	h.namespace(t, "drivers")
	to := in(h.admin(), datasetsResource, "drivers")
	_, err := to.Create(context.Background(), object(t, datasetText("ledger", "orakel")), metav1.CreateOptions{})
	if !apierrors.IsForbidden(err) {
		t.Fatalf("driver orakel: %v, want forbidden", err)
	}
	for _, want := range []string{"ledger", `"orakel"`, "postgresql"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("refusal %q does not name %s", err, want)
		}
	}
	apply(t, to, datasetText("ledger", "postgresql"), "test")
	if _, err := to.Patch(context.Background(), "ledger", "application/merge-patch+json", []byte(`{"spec":{"driver":"orakel"}}`), metav1.PatchOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("change to driver orakel: %v, want forbidden", err)
	}
}

func testApprovals(t *testing.T, h *hub) {
	runs := func(config *rest.Config, name string) *unstructured.Unstructured {
		run := object(t, "{apiVersion: tripod.dev/v1alpha1, kind: RecoveryRun, metadata: {name: "+name+"}, spec: {application: {namespace: pay, name: ledger}, action: Failover, from: {cluster: north-1}, to: {cluster: north-2}, requester: claimed}}")
		created, err := in(config, runsResource, "").Create(context.Background(), run, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return created
	}
	approve := func(config *rest.Config, run string) (*unstructured.Unstructured, error) {
		approval := object(t, "{apiVersion: tripod.dev/v1alpha1, kind: Approval, metadata: {generateName: a-}, spec: {run: "+run+", decision: Approve, approver: claimed, approverGroups: [claimed]}}")
		return in(config, approvalsResource, "").Create(context.Background(), approval, metav1.CreateOptions{})
	}
	alice, bob := h.as("alice", "system:masters"), h.as("bob", "system:masters", "dr-approvers")

	for text, want := range map[string]string{
		"action: Failover, pauseLimitSeconds: 5":      "bounds the write pause of a Switchover",
		"action: Switchover, pauseLimitSeconds: 7200": "less than or equal to 3600",
		"action: Switchover, pauseLimitSeconds: 5":    "",
		"action: Switchover, insteadOf: other":        "insteadOf is for the Failover of one application",
		"action: Failover, insteadOf: other":          "",
	} {
		run := object(t, "{apiVersion: tripod.dev/v1alpha1, kind: RecoveryRun, metadata: {generateName: limit-}, spec: {application: {namespace: pay, name: none}, from: {cluster: north-1}, to: {cluster: north-2}, "+text+"}}")
		_, err := in(alice, runsResource, "").Create(context.Background(), run, metav1.CreateOptions{})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	for text, want := range map[string]string{
		"from: {center: north-1}, to: {}":              "",
		"from: {}, to: {center: north-2}":              "a run without an application is for a whole place",
		"from: {region: north}, to: {}, parent: other": "only the hub makes runs that belong to another one",
		"application: {namespace: pay, name: none}, from: {center: north-1}, to: {}, parent: by-alice": "only the hub makes runs that belong to another one",
	} {
		run := object(t, "{apiVersion: tripod.dev/v1alpha1, kind: RecoveryRun, metadata: {generateName: place-}, spec: {action: Failover, "+text+"}}")
		_, err := in(alice, runsResource, "").Create(context.Background(), run, metav1.CreateOptions{})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	requester, _, _ := unstructured.NestedString(runs(alice, "by-alice").Object, "spec", "requester")
	if requester != "alice" {
		t.Errorf("requester %q, want the authenticated user", requester)
	}
	if requester, _, _ = unstructured.NestedString(runs(h.server.Loopback(), "by-engine").Object, "spec", "requester"); requester != "claimed" {
		t.Errorf("requester %q, want what the hub wrote", requester)
	}

	approval, err := approve(bob, "by-alice")
	if err != nil {
		t.Fatal(err)
	}
	spec, _, _ := unstructured.NestedMap(approval.Object, "spec")
	got := map[string]any{"approver": spec["approver"], "approverGroups": spec["approverGroups"]}
	want := map[string]any{"approver": "bob", "approverGroups": []any{"dr-approvers", "system:masters", "system:authenticated"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("stamp (-want +got):\n%s", diff)
	}

	for step, decision := range map[string]string{"pause": "Reject", "resume": "Approve", "retry": "Approve", "abort": "Reject"} {
		word := object(t, "{apiVersion: tripod.dev/v1alpha1, kind: Approval, metadata: {generateName: a-}, spec: {run: by-alice, step: "+step+", decision: "+decision+"}}")
		if _, err := in(alice, approvalsResource, "").Create(context.Background(), word, metav1.CreateOptions{}); err != nil {
			t.Errorf("%s by who ordered the run: %v", step, err)
		}
	}

	h.namespace(t, "approvals")
	apply(t, in(h.admin(), datasetsResource, "approvals"), datasetText("ledger", "postgresql"), "test")
	mask := rest.CopyConfig(alice)
	mask.Impersonate = rest.ImpersonationConfig{UserName: "bob", Groups: []string{"system:masters"}}
	for name, test := range map[string]struct {
		config *rest.Config
		run    string
		want   string
	}{
		"the requester":                   {alice, "by-alice", "cannot approve it"},
		"the requester in another's name": {mask, "by-alice", "do not impersonate"},
		"a run that does not exist":       {bob, "no-such", `there is no run "no-such"`},
		"a copy of no dataset":            {bob, "discard.approvals.no-such.north-1.0", "there is no dataset approvals/no-such"},
		"a copy at another epoch":         {bob, "discard.approvals.ledger.north-1.7", "is at epoch 0"},
	} {
		if _, err := approve(test.config, test.run); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want a refusal with %q", name, err, test.want)
		}
	}
	if _, err := approve(bob, "discard.approvals.ledger.north-1.0"); err != nil {
		t.Errorf("a diverged copy: %v, want anyone to approve", err)
	}
	if _, err := approve(alice, "by-engine"); err != nil {
		t.Errorf("a run nobody asked for: %v, want anyone to approve", err)
	}
}

// testWithdrawal: who may order a recovery may withdraw it, and decides upon
// nothing else; who may approve does not have to be anybody else.
func testWithdrawal(t *testing.T, h *hub) {
	bindings := in(h.admin(), schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterrolebindings"}, "")
	for group, role := range map[string]string{"ordering": RoleOperator, "approving": RoleApprover} {
		apply(t, bindings, "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: "+group+"}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: '"+role+"'}, subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "+group+"}]}", "test")
	}
	order := func(who *rest.Config, name string) error {
		run := object(t, "{apiVersion: tripod.dev/v1alpha1, kind: RecoveryRun, metadata: {name: "+name+"}, spec: {application: {namespace: pay, name: none}, action: Failover, from: {cluster: north-1}, to: {cluster: north-2}}}")
		_, err := in(who, runsResource, "").Create(context.Background(), run, metav1.CreateOptions{})
		return err
	}
	decide := func(who *rest.Config, decision, run string) error {
		approval := object(t, "{apiVersion: tripod.dev/v1alpha1, kind: Approval, metadata: {generateName: w-}, spec: {run: "+run+", decision: "+decision+"}}")
		_, err := in(who, approvalsResource, "").Create(context.Background(), approval, metav1.CreateOptions{})
		return err
	}
	otto, anna := h.as("otto", "ordering"), h.as("anna", "approving")
	eventually(t, "otto may order", func(context.Context) string {
		if err := order(otto, "by-otto"); err != nil {
			return err.Error()
		}
		return ""
	})
	if err := order(h.admin(), "by-somebody"); err != nil {
		t.Fatal(err)
	}
	if err := decide(otto, "Reject", "by-otto"); err != nil {
		t.Errorf("otto withdraws what he asked for: %v", err)
	}
	for _, decision := range []string{"Approve", "Reject"} {
		if err := decide(otto, decision, "by-somebody"); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), RoleApprover) {
			t.Errorf("otto decides %s upon another's run: %v, want a refusal that names %s", decision, err, RoleApprover)
		}
		if err := decide(anna, decision, "by-somebody"); err != nil {
			t.Errorf("anna decides %s: %v", decision, err)
		}
	}
}

func testRunsUnderWay(t *testing.T, h *hub) {
	runs := in(h.as("alice", "system:masters"), runsResource, "")
	in := func(status string) string {
		run := object(t, "{apiVersion: tripod.dev/v1alpha1, kind: RecoveryRun, metadata: {generateName: under-way-}, spec: {application: {namespace: pay, name: none}, action: Failover, from: {cluster: north-1}, to: {cluster: north-2}}}")
		created, err := runs.Create(context.Background(), run, metav1.CreateOptions{})
		if err == nil && status != "" {
			created.Object["status"] = object(t, "{apiVersion: v1, kind: Status, status: {"+status+"}}").Object["status"]
			created, err = runs.UpdateStatus(context.Background(), created, metav1.UpdateOptions{})
		}
		if err != nil {
			t.Fatal(err)
		}
		return created.GetName()
	}
	for _, status := range []string{"phase: Fencing", "phase: Paused, resumePhase: Promoting", "phase: Drilling"} {
		name := in(status)
		err := runs.Delete(context.Background(), name, metav1.DeleteOptions{})
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "tripodctl run "+name) {
			t.Errorf("a run of %q is deleted: %v", status, err)
		}
		if err := runs.DeleteCollection(context.Background(), metav1.DeleteOptions{}, metav1.ListOptions{FieldSelector: "metadata.name=" + name}); !apierrors.IsForbidden(err) {
			t.Errorf("a run of %q is deleted with others: %v", status, err)
		}
	}
	for _, status := range []string{"", "phase: AwaitingApproval", "phase: Waves", "phase: Paused, resumePhase: Preflight", "phase: Completed", "phase: Aborted"} {
		if err := runs.Delete(context.Background(), in(status), metav1.DeleteOptions{}); err != nil {
			t.Errorf("a run of %q: %v", status, err)
		}
	}
}
