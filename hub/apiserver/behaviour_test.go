package apiserver

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"
)

var (
	getOptions = metav1.GetOptions{}

	clusters    = schema.GroupVersionResource{Group: "tripod.dev", Version: "v1alpha1", Resource: "clusters"}
	namespaces  = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	configMaps  = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	services    = schema.GroupVersionResource{Version: "v1", Resource: "services"}
	deployments = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	crdResource = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
)

func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
		t.Fatal(err)
	}
	return o
}

func in(config *rest.Config, resource schema.GroupVersionResource, namespace string) dynamic.ResourceInterface {
	client := dynamic.NewForConfigOrDie(config).Resource(resource)
	if namespace == "" {
		return client
	}
	return client.Namespace(namespace)
}

func apply(t *testing.T, to dynamic.ResourceInterface, text, manager string) *unstructured.Unstructured {
	t.Helper()
	o := object(t, text)
	applied, err := to.Apply(context.Background(), o.GetName(), o, metav1.ApplyOptions{FieldManager: manager})
	if err != nil {
		t.Fatalf("apply %s: %v", o.GetName(), err)
	}
	return applied
}

func (h *hub) namespace(t *testing.T, name string) {
	t.Helper()
	apply(t, in(h.admin(), namespaces, ""), "{apiVersion: v1, kind: Namespace, metadata: {name: "+name+"}}", "test")
}

func (h *hub) crdVersions(t *testing.T) map[string]string {
	t.Helper()
	list, err := in(h.admin(), crdResource, "").List(context.Background(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	versions := map[string]string{}
	for _, item := range list.Items {
		versions[item.GetName()] = fmt.Sprint(item.GetGeneration())
	}
	if len(versions) < 9 {
		t.Fatalf("CRDs %v, want nine at least", versions)
	}
	return versions
}

func testDiscovery(t *testing.T, h *hub) {
	lists, err := kubernetes.NewForConfigOrDie(h.admin()).Discovery().ServerPreferredResources()
	if err != nil {
		t.Fatal(err)
	}
	served := map[string][]string{}
	for _, list := range lists {
		for _, resource := range list.APIResources {
			served[list.GroupVersion+"/"+resource.Name] = resource.ShortNames
		}
	}
	for _, want := range []string{
		"tripod.dev/v1alpha1/clusters", "tripod.dev/v1alpha1/datasets", "tripod.dev/v1alpha1/recoveryruns",
		"apps/v1/deployments", "apps/v1/statefulsets", "batch/v1/cronjobs", "autoscaling/v2/horizontalpodautoscalers",
		"networking.k8s.io/v1/ingresses", "policy/v1/poddisruptionbudgets", "v1/services", "v1/persistentvolumeclaims",
		"v1/configmaps", "v1/secrets", "v1/serviceaccounts", "v1/events", "rbac.authorization.k8s.io/v1/clusterroles",
		"certificates.k8s.io/v1/certificatesigningrequests", "coordination.k8s.io/v1/leases",
	} {
		if _, ok := served[want]; !ok {
			t.Errorf("%s is not served", want)
		}
	}
	for _, runs := range []string{"v1/pods", "v1/nodes", "v1/bindings", "networking.k8s.io/v1/ipaddresses", "v1/resourcequotas"} {
		if _, ok := served[runs]; ok {
			t.Errorf("%s is served", runs)
		}
	}
	if diff := cmp.Diff([]string{"tcl"}, served["tripod.dev/v1alpha1/clusters"]); diff != "" {
		t.Errorf("short names of clusters (-want +got):\n%s", diff)
	}
}

func testOpenAPI(t *testing.T, h *hub) {
	client := kubernetes.NewForConfigOrDie(h.admin()).RESTClient()
	eventually(t, "OpenAPI v3 has Cluster.spec", func(ctx context.Context) string {
		body, err := client.Get().AbsPath("/openapi/v3/apis/tripod.dev/v1alpha1").DoRaw(ctx)
		if err != nil {
			return err.Error()
		}
		var doc struct {
			Components struct {
				Schemas map[string]struct {
					Properties map[string]struct{ Description string }
				}
			}
		}
		if err := json.Unmarshal(body, &doc); err != nil {
			return err.Error()
		}
		if got := doc.Components.Schemas["dev.tripod.v1alpha1.Cluster"].Properties["spec"].Description; !strings.Contains(got, "where a cluster is") {
			return fmt.Sprintf("spec described as %q", got)
		}
		return ""
	})
	eventually(t, "OpenAPI v2 has Cluster and Deployment", func(ctx context.Context) string {
		body, err := client.Get().AbsPath("/openapi/v2").SetHeader("Accept", "application/json").DoRaw(ctx)
		if err != nil {
			return err.Error()
		}
		for _, want := range []string{`"dev.tripod.v1alpha1.Cluster"`, `"io.k8s.api.apps.v1.Deployment"`} {
			if !strings.Contains(string(body), want) {
				return want + " is missing"
			}
		}
		return ""
	})
}

const deployment = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: ledger-api}
spec:
  replicas: %d
  selector: {matchLabels: {app: ledger}}
  template:
    metadata: {labels: {app: ledger}}
    spec: {containers: [{name: api, image: "ledger:1"}]}
`

func testServerSideApply(t *testing.T, h *hub) {
	h.namespace(t, "pay")
	to := in(h.admin(), deployments, "pay")
	created := apply(t, to, fmt.Sprintf(deployment, 3), "kubectl")
	if policy, _, _ := unstructured.NestedString(created.Object, "spec", "template", "spec", "restartPolicy"); policy != "Always" {
		t.Errorf("restartPolicy %q, want upstream's default", policy)
	}
	apply(t, to, fmt.Sprintf(deployment, 3), "kubectl")
	_, err := to.Apply(context.Background(), "ledger-api", object(t, fmt.Sprintf(deployment, 5)), metav1.ApplyOptions{FieldManager: "other"})
	if !apierrors.IsConflict(err) || !strings.Contains(err.Error(), ".spec.replicas") {
		t.Errorf("another manager's replicas: %v, want a conflict", err)
	}
	cluster := apply(t, in(h.admin(), clusters, ""), clusterText("north-9"), "kubectl")
	if mode, _, _ := unstructured.NestedString(cluster.Object, "spec", "access", "mode"); mode != "Tunnel" {
		t.Errorf("access.mode %q, want the schema's default", mode)
	}
	_, err = in(h.admin(), clusters, "").Create(context.Background(), object(t, clusterText("fleet")), metav1.CreateOptions{})
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "choose another cluster name") {
		t.Errorf("cluster fleet: %v, want the schema's CEL rule to refuse it", err)
	}
}

func clusterText(name string) string {
	return "{apiVersion: tripod.dev/v1alpha1, kind: Cluster, metadata: {name: " + name + "}, spec: {region: north, center: north-1, admission: Accepted}}"
}

func testTables(t *testing.T, h *hub) {
	client := kubernetes.NewForConfigOrDie(h.admin()).RESTClient()
	for path, want := range map[string][]string{
		"/apis/apps/v1/namespaces/pay/deployments": {"Name", "Ready", "Up-to-date", "Available", "Age"},
		"/apis/tripod.dev/v1alpha1/clusters":       {"Name", "Region", "Center", "Ready", "Leased", "Version", "Age"},
	} {
		body, err := client.Get().AbsPath(path).SetHeader("Accept", "application/json;as=Table;g=meta.k8s.io;v=v1").DoRaw(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		var table metav1.Table
		if err := json.Unmarshal(body, &table); err != nil {
			t.Fatal(err)
		}
		var columns []string
		for _, column := range table.ColumnDefinitions {
			if column.Priority == 0 {
				columns = append(columns, column.Name)
			}
		}
		if diff := cmp.Diff(want, columns); diff != "" || len(table.Rows) == 0 {
			t.Errorf("%s: %d rows, columns (-want +got):\n%s", path, len(table.Rows), diff)
		}
	}
}

func testWatch(t *testing.T, h *hub) {
	h.namespace(t, "watched")
	client := in(h.admin(), configMaps, "watched")
	watcher, err := client.Watch(context.Background(), metav1.ListOptions{FieldSelector: "metadata.name=seen"})
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Stop()
	apply(t, client, "{apiVersion: v1, kind: ConfigMap, metadata: {name: seen}, data: {a: b}}", "test")
	select {
	case event := <-watcher.ResultChan():
		if event.Type != watch.Added {
			t.Errorf("first event is %s", event.Type)
		}
	case <-time.After(10 * time.Second):
		t.Error("no event in 10 s")
	}
}

func testServices(t *testing.T, h *hub) {
	h.namespace(t, "svc")
	to := in(h.admin(), services, "svc")
	for name, test := range map[string]struct{ spec, ip string }{
		"plain":    {`{ports: [{port: 80}]}`, ""},
		"headless": {`{clusterIP: None, ports: [{port: 80}]}`, "None"},
		"pinned":   {`{clusterIP: 10.77.0.9, ports: [{port: 80}]}`, "10.77.0.9"},
		"node-a":   {`{type: NodePort, ports: [{port: 80, nodePort: 30080}]}`, ""},
		"node-b":   {`{type: NodePort, ports: [{port: 80, nodePort: 30080}]}`, ""},
		"balanced": {`{type: LoadBalancer, externalTrafficPolicy: Local, ports: [{port: 80}]}`, ""},
		"external": {`{type: ExternalName, externalName: a.example.test}`, ""},
		"dual":     {`{ipFamilyPolicy: PreferDualStack, ports: [{port: 80}]}`, ""},
	} {
		text := "{apiVersion: v1, kind: Service, metadata: {name: " + name + "}, spec: " + test.spec + "}"
		apply(t, to, text, "test")
		again := apply(t, to, strings.Replace(text, "port: 80", "port: 81", 1), "test")
		if got, _, _ := unstructured.NestedString(again.Object, "spec", "clusterIP"); got != test.ip {
			t.Errorf("%s: clusterIP %q, want %q", name, got, test.ip)
		}
	}
	_, err := to.Create(context.Background(), object(t, "{apiVersion: v1, kind: Service, metadata: {name: bad}, spec: {ports: [{port: 99999}]}}"), metav1.CreateOptions{})
	if !apierrors.IsInvalid(err) {
		t.Errorf("port 99999: %v, want upstream's validation", err)
	}
}

func testNamespaceDeletion(t *testing.T, h *hub) {
	h.namespace(t, "doomed")
	apply(t, in(h.admin(), deployments, "doomed"), fmt.Sprintf(deployment, 1), "test")
	apply(t, in(h.admin(), datasetsResource, "doomed"), datasetText("d", "postgresql"), "test")
	client := in(h.admin(), namespaces, "")
	if err := client.Delete(context.Background(), "doomed", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the namespace is gone", func(ctx context.Context) string {
		got, err := client.Get(ctx, "doomed", getOptions)
		if apierrors.IsNotFound(err) {
			return ""
		}
		if err != nil {
			return err.Error()
		}
		status, _, _ := unstructured.NestedMap(got.Object, "status")
		return fmt.Sprint(status)
	})
}

func testGarbageCollection(t *testing.T, h *hub) {
	h.namespace(t, "owners")
	owner := apply(t, in(h.admin(), deployments, "owners"), fmt.Sprintf(deployment, 1), "test")
	dependents := in(h.admin(), configMaps, "owners")
	dependent := object(t, "{apiVersion: v1, kind: ConfigMap, metadata: {name: dependent}}")
	dependent.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: owner.GetName(), UID: owner.GetUID()}})
	if _, err := dependents.Create(context.Background(), dependent, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := in(h.admin(), deployments, "owners").Delete(context.Background(), owner.GetName(), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	isGone(t, dependents, "dependent")

	// Tripod's own kinds are collected, and owned, like any other.
	datasets := in(h.admin(), datasetsResource, "owners")
	first := apply(t, datasets, datasetText("first", "postgresql"), "test")
	second := object(t, datasetText("second", "postgresql"))
	second.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "tripod.dev/v1alpha1", Kind: "Dataset", Name: first.GetName(), UID: first.GetUID()}})
	if _, err := datasets.Create(context.Background(), second, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := datasets.Delete(context.Background(), "first", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	isGone(t, datasets, "second")
}

func isGone(t *testing.T, client dynamic.ResourceInterface, name string) {
	t.Helper()
	eventually(t, name+" is gone", func(ctx context.Context) string {
		if _, err := client.Get(ctx, name, getOptions); !apierrors.IsNotFound(err) {
			return fmt.Sprintf("there (%v)", err)
		}
		return ""
	})
}

func testStatusIsTheHubs(t *testing.T, h *hub) {
	h.namespace(t, "states")
	admin := in(h.admin(), datasetsResource, "states")
	apply(t, admin, datasetText("d", "postgresql"), "test")
	bind := "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: ops}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: 'tripod:operator'}, subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: ops}]}"
	apply(t, in(h.admin(), schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterrolebindings"}, ""), bind, "test")
	operator := in(h.as("olga", "ops"), datasetsResource, "states")
	eventually(t, "the operator may change the spec", func(ctx context.Context) string {
		_, err := operator.Patch(ctx, "d", "application/merge-patch+json", []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{})
		if err != nil {
			return err.Error()
		}
		return ""
	})
	_, err := operator.Patch(context.Background(), "d", "application/merge-patch+json", []byte(`{"status":{"primary":"south-1","epoch":99}}`), metav1.PatchOptions{}, "status")
	if !apierrors.IsForbidden(err) {
		t.Errorf("operator writes status: %v, want forbidden", err)
	}
	got, err := operator.Patch(context.Background(), "d", "application/merge-patch+json", []byte(`{"status":{"primary":"south-1","epoch":99}}`), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := got.Object["status"]; ok {
		t.Errorf("status was written through the object: %v", got.Object["status"])
	}
	loopback := in(h.server.Loopback(), datasetsResource, "states")
	if _, err := loopback.Patch(context.Background(), "d", "application/merge-patch+json", []byte(`{"status":{"primary":"north-1","epoch":1}}`), metav1.PatchOptions{}, "status"); err != nil {
		t.Errorf("the hub writes status: %v", err)
	}
}

func testAdmissionPolicy(t *testing.T, h *hub) {
	policies := schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicies"}
	bindings := policies.GroupVersion().WithResource("validatingadmissionpolicybindings")
	apply(t, in(h.admin(), policies, ""), `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: no-latest}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [apps], apiVersions: [v1], operations: [CREATE], resources: [deployments]}]}
  validations: [{expression: "object.metadata.name != 'latest'", message: "not that name"}]`, "test")
	apply(t, in(h.admin(), bindings, ""), `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: no-latest}
spec: {policyName: no-latest, validationActions: [Deny]}`, "test")
	h.namespace(t, "policed")
	to := in(h.admin(), deployments, "policed")
	eventually(t, "the policy refuses", func(ctx context.Context) string {
		o := object(t, fmt.Sprintf(deployment, 1))
		o.SetName("latest")
		_, err := to.Create(ctx, o, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil || !strings.Contains(err.Error(), "not that name") {
			return fmt.Sprint(err)
		}
		return ""
	})
}

func testServiceAccountTokens(t *testing.T, h *hub) {
	h.namespace(t, "robots")
	client := kubernetes.NewForConfigOrDie(h.admin())
	eventually(t, "the namespace has its default service account", func(ctx context.Context) string {
		if _, err := client.CoreV1().ServiceAccounts("robots").Get(ctx, "default", getOptions); err != nil {
			return err.Error()
		}
		return ""
	})
	token, err := client.CoreV1().ServiceAccounts("robots").CreateToken(context.Background(), "default", tokenRequest(), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	config := &rest.Config{Host: "https://" + h.server.Address(), BearerToken: token.Status.Token, TLSClientConfig: rest.TLSClientConfig{CAData: h.authority.PEM()}}
	review, err := kubernetes.NewForConfigOrDie(config).AuthenticationV1().SelfSubjectReviews().Create(context.Background(), selfReview(), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := review.Status.UserInfo; got.Username != "system:serviceaccount:robots:default" || !slices.Contains(got.Groups, "system:serviceaccounts:robots") {
		t.Errorf("the token is %q in %q", got.Username, got.Groups)
	}
}
