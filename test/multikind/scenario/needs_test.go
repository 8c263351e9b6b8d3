package scenario

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/deploy/ledger"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// caches is a kind that the standby's cluster does not serve.
const caches = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: caches.s23.example.test}
spec:
  group: s23.example.test
  scope: Namespaced
  names: {kind: Cache, listKind: CacheList, plural: caches, singular: cache}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
`

// wanting are parts of the application that the primary's cluster can hold and the
// standby's cannot.
const wanting = `
{apiVersion: s23.example.test/v1, kind: Cache, metadata: {name: s23, namespace: pay}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: s23-store, namespace: pay}
spec:
  replicas: 0
  serviceName: s23-store
  selector: {matchLabels: {app: s23-store}}
  template:
    metadata: {labels: {app: s23-store}}
    spec: {containers: [{name: store, image: tripod.dev/ledger-api:dev, imagePullPolicy: IfNotPresent}]}
  volumeClaimTemplates:
  - {metadata: {name: data}, spec: {storageClassName: s23-fast, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: s23-web, namespace: pay}
spec:
  replicas: 1
  selector: {matchLabels: {app: s23-web}}
  template:
    metadata: {labels: {app: s23-web}}
    spec: {containers: [{name: web, image: "tripod.dev/s23:missing", imagePullPolicy: Never}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: s23-heavy, namespace: pay}
spec:
  replicas: 1
  selector: {matchLabels: {app: s23-heavy}}
  template:
    metadata: {labels: {app: s23-heavy}}
    spec: {containers: [{name: heavy, image: tripod.dev/pause:dev, imagePullPolicy: Never, resources: {requests: {cpu: "1"}}}]}
---
apiVersion: tripod.dev/v1alpha1
kind: Placement
metadata: {name: s23, namespace: pay}
spec:
  resources: [{apiVersion: s23.example.test/v1, kind: Cache, name: s23}, {apiVersion: apps/v1, kind: StatefulSet, name: s23-store}]
  clusters: {names: [%[1]s]}
---
apiVersion: tripod.dev/v1alpha1
kind: Placement
metadata: {name: s23-web, namespace: pay}
spec:
  resources: [{apiVersion: apps/v1, kind: Deployment, name: s23-web}]
  clusters: {names: [%[2]s]}
---
apiVersion: tripod.dev/v1alpha1
kind: Placement
metadata: {name: s23-heavy, namespace: pay}
spec:
  resources: [{apiVersion: apps/v1, kind: Deployment, name: s23-heavy}]
  clusters: {names: [%[1]s]}
  whenLost: Move
`

// filler is somebody else's work in the standby's cluster, without which there would be
// room.
const filler = `
{apiVersion: v1, kind: Namespace, metadata: {name: s23-others}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: filler, namespace: s23-others}
spec:
  replicas: 1
  selector: {matchLabels: {app: filler}}
  template:
    metadata: {labels: {app: filler}}
    spec: {containers: [{name: filler, image: tripod.dev/pause:dev, imagePullPolicy: Never, resources: {requests: {cpu: "1"}}}]}
`

// S23: the target lacks capacity, a storage class, an image and a kind. The preflight
// says each of it beforehand, and takes it back when nothing is missing any more;
// nothing is evicted, and the application goes on.
func TestS23TheTargetLacksSomething(t *testing.T) {
	f := fleet(t)
	primary, standby, before := f.pair(t)
	b := business(t, f)
	running := f.podsOf(t, standby, "pay")
	f.wants(t, primary, standby)
	err := f.awaitFailed(t, standby, map[string]string{
		"StorageClass": "storage class s23-fast, which placement s23 names, is not there",
		"CustomKinds":  "kind Cache.s23.example.test, which placement s23 names, is not there",
		"Images":       "tripod.dev/s23:missing, which placement s23-web names",
		"Capacity":     "it would lack",
	})
	if err != nil {
		t.Error(err)
	}
	said := must(t)(f.Kubectl(t.Context(), nil, "--context", "hub", "-n", ledger.Namespace, "get", "application", "ledger", "-o", `jsonpath={.status.conditions[?(@.type=="Ready")]}`))
	says(t, said, `"status":"False"`, standby)
	f.tell(said)
	for name, uid := range running {
		if now := f.podsOf(t, standby, "pay"); now[name] != uid {
			t.Errorf("pod %s of %s was %s and is %q", name, standby, uid, now[name])
		}
	}
	if err := b.AwaitTransfers(t.Context(), 50, time.Minute); err != nil {
		t.Error(err)
	}
	f.wantsNothing(t, primary, standby)
	if err := f.awaitFailed(t, standby, nil); err != nil {
		t.Error(err)
	}
	if err := f.AwaitApplication(t.Context(), 2*time.Minute); err != nil {
		t.Error(err)
	}
	if wrong, err := unmoved(f, before)(t.Context()); err != nil || wrong != "" {
		t.Errorf("in the end: %s %v", wrong, err)
	}
	audit(t, b)
}

// wants makes the application want what the standby's cluster does not have.
func (f *Fleet) wants(t *testing.T, primary, standby string) {
	t.Helper()
	t.Cleanup(func() { f.wantsNothing(t, primary, standby) })
	for _, where := range []string{"hub", "direct-" + primary} {
		must(t)(f.Kubectl(t.Context(), strings.NewReader(caches), "--context", where, "apply", "-f", "-"))
		must(t)(f.Kubectl(t.Context(), nil, "--context", where, "wait", "crd/caches.s23.example.test", "--for", "condition=Established", "--timeout", "30s"))
	}
	must(t)(f.Kubectl(t.Context(), strings.NewReader(filler), "--context", "direct-"+standby, "apply", "-f", "-"))
	must(t)(f.Kubectl(t.Context(), strings.NewReader(fmt.Sprintf(wanting, primary, standby)), "--context", "hub", "apply", "-f", "-"))
	f.places(t.Context(), t, "ledger", "ledger-db", "s23", "s23-web", "s23-heavy")
}

// wantsNothing takes all of it away; nothing of it may be there.
func (f *Fleet) wantsNothing(t *testing.T, primary, standby string) {
	t.Helper()
	f.places(context.WithoutCancel(t.Context()), t, "ledger", "ledger-db")
	drop(t, f, "hub", "-n", "pay", "placement/s23", "placement/s23-web", "placement/s23-heavy",
		"statefulset/s23-store", "deployment/s23-web", "deployment/s23-heavy")
	for _, where := range []string{"hub", "direct-" + primary} {
		drop(t, f, where, "crd/caches.s23.example.test")
	}
	drop(t, f, "direct-"+standby, "namespace/s23-others")
}

// places says which placements the application has.
func (f *Fleet) places(ctx context.Context, t *testing.T, names ...string) {
	t.Helper()
	patch := fmt.Sprintf(`{"spec":{"placements":["%s"]}}`, strings.Join(names, `","`))
	if _, err := f.Kubectl(ctx, nil, "--context", "hub", "-n", ledger.Namespace, "patch", "application", "ledger", "--type", "merge", "-p", patch); err != nil {
		t.Error(err)
	}
}

// podsOf are the pods of a namespace with their uids.
func (f *Fleet) podsOf(t *testing.T, center, namespace string) map[string]string {
	t.Helper()
	out := must(t)(f.Kubectl(t.Context(), nil, "--context", "direct-"+center, "-n", namespace, "get", "pods",
		"-o", `jsonpath={range .items[*]}{.metadata.name}{" "}{.metadata.uid}{"\n"}{end}`))
	pods := map[string]string{}
	for line := range strings.Lines(out) {
		if name, uid, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			pods[name] = uid
		}
	}
	return pods
}

// awaitFailed waits until exactly these checks of a recovery to target have failed, each
// saying so.
func (f *Fleet) awaitFailed(t *testing.T, target string, want map[string]string) error {
	t.Helper()
	return f.await(t.Context(), 2*time.Minute, fmt.Sprintf("the preflight of %s fails in %d checks", target, len(want)), func(ctx context.Context) (string, error) {
		api, err := f.API()
		if err != nil {
			return "", err
		}
		var app v1alpha1.Application
		if err := api.Get(ctx, client.ObjectKey{Namespace: ledger.Namespace, Name: "ledger"}, &app); err != nil {
			return "", err
		}
		failed := 0
		var wrong []string
		for _, c := range app.Status.Preflight {
			if c.Target != target || c.Result != v1alpha1.PreflightFailed {
				continue
			}
			failed++
			if text, ok := want[c.Check]; !ok || !strings.Contains(c.Message, text) {
				wrong = append(wrong, fmt.Sprintf("%s: %s", c.Check, c.Message))
			}
		}
		if failed != len(want) {
			wrong = append(wrong, fmt.Sprintf("%d failed", failed))
		}
		return strings.Join(wrong, "; "), nil
	})
}
