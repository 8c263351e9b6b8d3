package apiserver

import (
	"context"
	"os"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
)

var plansResource = schema.GroupVersionResource{Group: "tripod.dev", Version: "v1alpha1", Resource: "recoveryplans"}

// testPlans creates plans that are right and wrong: a wrong one is refused with
// what to mend.
func testPlans(t *testing.T, h *hub) {
	example, err := os.ReadFile("../../deploy/plans/city.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in(h.admin(), plansResource, "").Create(context.Background(), object(t, string(example)), metav1.CreateOptions{}); err != nil {
		t.Errorf("deploy/plans/city.yaml: %v", err)
	}
	for text, want := range map[string]string{
		"waves: [{name: data, applications: {names: [{namespace: pay, name: ledger}]}, parallelism: 3}], use: Automatic": "",
		"waves: [{name: data, applications: {}}, {name: data, applications: {}}]":                                        "Duplicate value",
		"waves: [{name: Data, applications: {}}]":                                                                        "spec.waves[0].name",
		"use: Always": "supported values",
		"safety: {maxLostFraction: 0.5, minActiveCenters: 1}": "",
		"approvals: {required: 2, groups: [a, b]}":            "",
		"approvals: {required: 17}":                           "less than or equal to 16",
		"approvals: {required: 0}":                            "greater than or equal to 1",
		"approvals: {groups: ['']}":                           "approvals.groups[0]",
		"approvals: {groups: [a, a]}":                         "Duplicate value",
		"approvals: {required: 2, expireSeconds: 30}":         "give them 60 or more",
		"approvals: {expireSeconds: 30}":                      "",
		"safety: {maxLostFraction: 1.5}":                      "less than or equal to 1",
		"hooks: [{name: a, at: BeforePromote, http: {url: 'https://x.example.test'}}, {name: b, at: AfterRun, wait: {condition: 'true'}}]": "",
		"hooks: [{name: a, at: BeforePromote}]":                                                 "a hook is exactly one of",
		"hooks: [{name: a, at: AfterRoute, wait: {condition: 'true'}, grpc: {address: 'x:1'}}]": "a hook is exactly one of",
		"hooks: [{name: a, at: Sometimes, wait: {condition: 'true'}}]":                          "supported values",
		"hooks: [{name: a, at: AfterRun, wait: {condition: 'true'}, timeoutSeconds: 7200}]":     "less than or equal to 3600",
		"hooks: [{name: a, at: AfterRun, wait: {condition: 'size(clusters) > '}}]":              "spec.hooks[0].wait.condition",
		"hooks: [{name: a, at: AfterRun, wait: {condition: 'size(clusters)'}}]":                 "condition is a int, want a bool",
		"hooks: [{name: a, at: AfterRun, wait: {condition: 'pods.size() > 0'}}]":                "undeclared reference to 'pods'",
		"hooks: [{name: a, at: AfterRun, message: {url: 'ftp://x'}}]":                           "hooks[0].message.url",
	} {
		plan := object(t, "{apiVersion: tripod.dev/v1alpha1, kind: RecoveryPlan, metadata: {generateName: p-}, spec: {applications: {}, "+text+"}}")
		made, err := in(h.admin(), plansResource, "").Create(context.Background(), plan, metav1.CreateOptions{})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
		if err != nil {
			continue
		}
		if use, _, _ := unstructured.NestedString(made.Object, "spec", "use"); use == "" {
			t.Errorf("%s: spec.use has no default", text)
		}
	}
}

// TestAConditionThatIsThereAlreadyIsLeftAlone: a plan that an older hub has taken can
// still be changed.
func TestAConditionThatIsThereAlreadyIsLeftAlone(t *testing.T) {
	plan := func(conditions ...string) *unstructured.Unstructured {
		p := object(t, "{apiVersion: tripod.dev/v1alpha1, kind: RecoveryPlan, metadata: {name: city}, spec: {applications: {}, hooks: []}}")
		var hooks []any
		for _, c := range conditions {
			hooks = append(hooks, map[string]any{"name": "a", "at": "AfterRun", "wait": map[string]any{"condition": c}})
		}
		if err := unstructured.SetNestedSlice(p.Object, hooks, "spec", "hooks"); err != nil {
			t.Fatal(err)
		}
		return p
	}
	old := plan("size(", "true")
	for text, c := range map[string]struct {
		next *unstructured.Unstructured
		want string
	}{
		"unchanged":       {plan("size(", "true"), ""},
		"moved":           {plan("false", "size("), ""},
		"another is bad":  {plan("size(", "sizes("), "spec.hooks[1].wait.condition"},
		"it is made good": {plan("size(clusters) > 0"), ""},
	} {
		kind := schema.GroupVersionKind{Group: "tripod.dev", Version: "v1alpha1", Kind: "RecoveryPlan"}
		a := admission.NewAttributesRecord(c.next, old, kind, "", "city", plansResource, "", admission.Update, &metav1.UpdateOptions{}, false, nil)
		err := newPlanCheck().Validate(t.Context(), a, nil)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", text, err, c.want)
		}
	}
}
