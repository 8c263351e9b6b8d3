package apiserver

import (
	"context"
	"fmt"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
)

var placementsResource = schema.GroupVersionResource{Group: "tripod.dev", Version: "v1alpha1", Resource: "placements"}

// rightsOfPeople: eve may write roles, bindings and placements; pat may, besides,
// give clusters what is called sre-nodes or sre-more, and holds get on nodes.
const rightsOfPeople = `
{kind: Namespace, apiVersion: v1, metadata: {name: tripod-system}}
---
{kind: ClusterRole, apiVersion: rbac.authorization.k8s.io/v1, metadata: {name: t-writer}, rules: [
  {apiGroups: [rbac.authorization.k8s.io], resources: [clusterroles, clusterrolebindings], verbs: [get, create, update, patch]},
  {apiGroups: [tripod.dev], resources: [placements, recoveryplans], verbs: [get, create, update, patch]}]}
---
{kind: ClusterRole, apiVersion: rbac.authorization.k8s.io/v1, metadata: {name: t-placer}, rules: [
  {apiGroups: [rbac.authorization.k8s.io], resources: [clusterroles, clusterrolebindings], resourceNames: [sre-nodes, sre-more], verbs: [place]},
  {apiGroups: [tripod.dev], resources: [recoveryplans], resourceNames: [drain], verbs: [runjobs]}]}
---
{kind: ClusterRole, apiVersion: rbac.authorization.k8s.io/v1, metadata: {name: t-nodes}, rules: [
  {apiGroups: [""], resources: [nodes], verbs: [get]}]}
---
{kind: ClusterRoleBinding, apiVersion: rbac.authorization.k8s.io/v1, metadata: {name: t-writer}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: t-writer},
  subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: eve}, {apiGroup: rbac.authorization.k8s.io, kind: User, name: pat}]}
---
{kind: ClusterRoleBinding, apiVersion: rbac.authorization.k8s.io/v1, metadata: {name: t-placer}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: t-placer},
  subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: pat}]}
---
{kind: ClusterRoleBinding, apiVersion: rbac.authorization.k8s.io/v1, metadata: {name: t-nodes}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: t-nodes},
  subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: pat}]}
`

// testRights tries to give clusters rights from the hub, each time with one thing
// missing.
func testRights(t *testing.T, h *hub) {
	ctx := context.Background()
	resources := map[string]schema.GroupVersionResource{
		"Namespace":   {Version: "v1", Resource: "namespaces"},
		"ClusterRole": roleResource, "ClusterRoleBinding": bindingResource, "Placement": placementsResource,
		"RecoveryPlan": {Group: "tripod.dev", Version: "v1alpha1", Resource: "recoveryplans"},
	}
	people := map[string]dynamic.Interface{"root": dynamic.NewForConfigOrDie(h.admin())}
	for _, name := range []string{"eve", "pat"} {
		people[name] = dynamic.NewForConfigOrDie(h.as(name))
	}
	create := func(who, text string) error {
		o := object(t, text)
		_, err := people[who].Resource(resources[o.GetKind()]).Namespace(o.GetNamespace()).Create(ctx, o, metav1.CreateOptions{})
		return err
	}
	for document := range strings.SplitSeq(rightsOfPeople, "---\n") {
		if err := create("root", document); err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
	eventually(t, "pat and eve have their rights", func(ctx context.Context) string {
		for _, who := range []string{"pat", "eve"} {
			if _, err := people[who].Resource(placementsResource).Namespace("default").Get(ctx, "none", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				return fmt.Sprint(err)
			}
		}
		return ""
	})
	for _, test := range rightsCases {
		t.Run(test.name, func(t *testing.T) {
			var err error
			if test.patch == "" {
				err = create(test.who, test.object)
			} else {
				kind, name, _ := strings.Cut(test.object, "/")
				namespace := ""
				if kind == "Placement" {
					namespace = "tripod-system"
				}
				_, err = people[test.who].Resource(resources[kind]).Namespace(namespace).Patch(ctx, name, types.MergePatchType, []byte(test.patch), metav1.PatchOptions{})
			}
			switch {
			case test.refused == "" && err != nil:
				t.Errorf("refused: %v", err)
			case test.refused != "" && (!apierrors.IsForbidden(err) || !strings.Contains(err.Error(), test.refused)):
				t.Errorf("got %v, want %q", err, test.refused)
			}
		})
	}
	left, err := people["root"].Resource(placementsResource).Namespace("tripod-system").Get(ctx, "access", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if clusters, found, _ := unstructured.NestedMap(left.Object, "spec", "clusters"); found && len(clusters) > 0 {
		t.Errorf("the placement was changed: %v", clusters)
	}
}

const (
	roleHead    = "apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {labels: {tripod.dev/place: 'true'}, "
	bindingHead = "apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {labels: {tripod.dev/place: 'true'}, "
	getNodes    = "rules: [{apiGroups: [''], resources: [nodes], verbs: [get]}]"
	toSRE       = "subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: 'oidc:sre'}]"
	placeHead   = "apiVersion: tripod.dev/v1alpha1, kind: Placement, metadata: "
	selectNodes = "spec: {resources: [{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, name: sre-nodes}]}"
)

func plan(name, hook string) string {
	return "{apiVersion: tripod.dev/v1alpha1, kind: RecoveryPlan, metadata: {name: " + name + "}, spec: {applications: {}, hooks: [{name: h, at: BeforeRun, " + hook + "}]}}"
}

func bound(role string) string {
	return "roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: " + role + "}, " + toSRE
}

// rightsCases go one after the other. With a patch, object is KIND/NAME.
var rightsCases = []struct{ name, who, object, patch, refused string }{
	{"no verb place, not even without rules", "eve", "{" + roleHead + "name: sre-nodes}, rules: []}", "", "may not give clusters rights"},
	{"rights that the person does not hold", "pat", "{" + roleHead + "name: sre-nodes}, rules: [{apiGroups: [''], resources: [secrets], verbs: [get]}]}", "", "not currently held"},
	{"a name that is not the person's to place", "pat", "{" + roleHead + "name: other}, " + getNodes + "}", "", "may not give clusters rights"},
	{"what the person holds and may place", "pat", "{" + roleHead + "name: sre-nodes}, " + getNodes + "}", "", ""},
	{"more rules later", "pat", "ClusterRole/sre-nodes", `{"rules":[{"apiGroups":["*"],"resources":["*"],"verbs":["*"]}]}`, "not currently held"},
	{"rules of another's placed role, even fewer", "eve", "ClusterRole/sre-nodes", `{"rules":[]}`, "may not give clusters rights"},
	{"a binding of a role that only the cluster knows", "pat", "{" + bindingHead + "name: sre-more}, " + bound("t-nodes") + "}", "", "binds ClusterRole t-nodes, which is not"},
	{"a binding of a role that nobody knows", "root", "{" + bindingHead + "name: sre-more}, " + bound("mystery") + "}", "", "binds ClusterRole mystery, which is not"},
	{"a binding of more than the person holds", "pat", "{" + bindingHead + "name: sre-more}, " + bound("cluster-admin") + "}", "", "not currently held"},
	{"a binding of the placed role", "pat", "{" + bindingHead + "name: sre-nodes}, " + bound("sre-nodes") + "}", "", ""},
	{"a binding without verb place", "eve", "{" + bindingHead + "name: sre-more}, " + bound("sre-nodes") + "}", "", "forbidden"},
	{"a role of Kubernetes", "root", "{" + roleHead + "name: 'system:mine'}, " + getNodes + "}", "", "belongs to Kubernetes or to Tripod"},
	{"the agent's role", "root", "{" + roleHead + "name: tripod-agent-placement}, " + getNodes + "}", "", "belongs to Kubernetes or to Tripod"},
	{"cluster-admin itself", "root", "ClusterRole/cluster-admin", `{"metadata":{"labels":{"tripod.dev/place":"true"}}}`, "belongs to Kubernetes or to Tripod"},
	{"a role that aggregates", "root", "{" + roleHead + "name: sum}, aggregationRule: {clusterRoleSelectors: [{matchLabels: {a: b}}]}, rules: []}", "", "list the rules"},
	{"a role that the agent would have", "root", "{" + strings.Replace(roleHead, "{labels: {", "{labels: {tripod.dev/aggregate-to-agent: 'true', ", 1) + "name: more}, " + getNodes + "}", "", "to the cluster's agent"},

	{"a placement without verb place", "eve", "{" + placeHead + "{name: access, namespace: tripod-system}, " + selectNodes + "}", "", "may not give clusters rights"},
	{"a placement elsewhere", "pat", "{" + placeHead + "{name: access, namespace: default}, " + selectNodes + "}", "", "only a placement in namespace tripod-system"},
	{"a placement of whatever has a label", "root", "{" + placeHead + "{name: all, namespace: tripod-system}, spec: {resources: [{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, labelSelector: {matchLabels: {a: b}}}]}}", "", "selected by name"},
	{"a placement of the hub's own role", "root", "{" + placeHead + "{name: all, namespace: tripod-system}, spec: {resources: [{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, name: cluster-admin}]}}", "", "belongs to Kubernetes or to Tripod"},
	{"a placement of what the person may place", "pat", "{" + placeHead + "{name: access, namespace: tripod-system}, " + selectNodes + "}", "", ""},
	{"a label on another's placement", "eve", "Placement/access", `{"metadata":{"labels":{"a":"b"}}}`, ""},
	{"more clusters for another's placement", "eve", "Placement/access", `{"spec":{"clusters":{"names":["north-1"]}}}`, "may not give clusters rights"},
	{"the mark taken away", "eve", "ClusterRole/sre-nodes", `{"metadata":{"labels":{"tripod.dev/place":null}}}`, "not currently held"},
	{"the mark put on again", "pat", "ClusterRole/sre-nodes", `{"metadata":{"labels":{"tripod.dev/place":"true"}}}`, ""},

	{"a plan without Jobs", "eve", plan("quiet", "http: {url: 'https://example.test'}"), "", ""},
	{"a plan with a Job without verb runjobs", "eve", plan("drain", "job: {in: Active, image: busybox}"), "", "may not have a plan run Jobs"},
	{"a Job that is added later", "eve", "RecoveryPlan/quiet", `{"spec":{"hooks":[{"name":"h","at":"BeforeRun","job":{"in":"Active","image":"busybox"}}]}}`, "may not have a plan run Jobs"},
	{"a plan that is not the person's to give Jobs", "pat", plan("other", "job: {in: Active, image: busybox}"), "", "may not have a plan run Jobs"},
	{"a Job beside the cluster's own pods", "pat", plan("drain", "job: {in: Active, image: busybox, namespace: kube-system}"), "", "belongs to Kubernetes or to Tripod"},
	{"a Job of who may", "pat", plan("drain", "job: {in: Active, image: busybox}"), "", ""},
}
