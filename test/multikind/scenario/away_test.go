package scenario

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// twoNotes are placed in the remote cluster; one of them is moved while it is away.
const twoNotes = `
{apiVersion: v1, kind: Namespace, metadata: {name: %[1]s}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: kept, namespace: %[1]s}, data: {note: stays}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: moved, namespace: %[1]s}, data: {note: goes}}
---
apiVersion: tripod.dev/v1alpha1
kind: Placement
metadata: {name: kept, namespace: %[1]s}
spec:
  resources: [{apiVersion: v1, kind: ConfigMap, name: kept}]
  clusters: {names: [south-1]}
---
apiVersion: tripod.dev/v1alpha1
kind: Placement
metadata: {name: moved, namespace: %[1]s}
spec:
  resources: [{apiVersion: v1, kind: ConfigMap, name: moved}]
  clusters: {names: [%[2]s]}
`

// S13: a cluster was away while placements changed, and returns. Nothing is deleted
// because of that: what will be is listed beforehand, by tombstones that somebody's
// change of a placement has committed. It comes back holding no role that it had not.
func TestS13AMemberWasAwayWhilePlacementsChanged(t *testing.T) {
	f := fleet(t)
	before, err := f.Dataset(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	placed, err := f.placedObjects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := business(t, f)
	t.Cleanup(func() {
		for _, where := range []string{"hub", "direct-" + remoteCenter, "direct-north-1"} {
			drop(t, f, where, "namespace/"+guest)
		}
	})
	f.placeNotes(t, remoteCenter)
	has := func(center, name string) bool {
		out, err := f.Kubectl(t.Context(), nil, "--context", "direct-"+center, "-n", guest, "get", "configmap", name, "--ignore-not-found", "-o", "name")
		return err == nil && strings.TrimSpace(out) != ""
	}
	f.awaitNote(t, remoteCenter, "kept")
	f.awaitNote(t, remoteCenter, "moved")

	f.silence(t, remoteCenter)
	f.placeNotes(t, "north-1")
	f.awaitNote(t, "north-1", "moved")
	f.awaitListed(t, "moved", remoteCenter)
	if err := f.outlive(t.Context(), 10*time.Second); err != nil { // longer than every lease
		t.Fatal(err)
	}
	if !has(remoteCenter, "kept") || !has(remoteCenter, "moved") {
		t.Error("something was deleted in a cluster while it was away")
	}
	f.unsilence(t.Context(), t, remoteCenter)
	if err := f.AwaitClusters(t.Context()); err != nil {
		t.Error(err)
	}
	err = f.await(t.Context(), time.Minute, "what was listed is gone", func(context.Context) (string, error) {
		if has(remoteCenter, "moved") {
			return remoteCenter + " has it still", nil
		}
		return "", nil
	})
	if err != nil {
		t.Error(err)
	}
	if !has(remoteCenter, "kept") {
		t.Error("what was not listed was deleted when the cluster came back")
	}
	nothingDeleted(t, f, placed)
	if wrong, err := unmoved(f, before)(t.Context()); err != nil || wrong != "" {
		t.Errorf("after it came back: %s %v", wrong, err)
	}
	d, err := f.Dataset(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if m := memberOf(d, remoteCenter); m == nil || m.Role != v1alpha1.RoleReplica {
		t.Errorf("it came back as %+v", m)
	}
	if err := b.AwaitTransfers(t.Context(), 50, time.Minute); err != nil {
		t.Error(err)
	}
	audit(t, b)
}

func (f *Fleet) placeNotes(t *testing.T, where string) {
	t.Helper()
	must(t)(f.Kubectl(t.Context(), strings.NewReader(fmt.Sprintf(twoNotes, guest, where)), "--context", "hub", "apply", "-f", "-"))
}

func (f *Fleet) awaitNote(t *testing.T, center, name string) {
	t.Helper()
	must(t)(f.Kubectl(t.Context(), nil, "--context", "direct-"+center, "-n", guest, "wait", "configmap/"+name, "--for", "create", "--timeout", "60s"))
}

// awaitListed waits until a tombstone says that an object will be deleted in a cluster.
func (f *Fleet) awaitListed(t *testing.T, name, cluster string) {
	t.Helper()
	err := f.await(t.Context(), time.Minute, "the deletion is listed", func(ctx context.Context) (string, error) {
		api, err := f.API()
		if err != nil {
			return "", err
		}
		var list v1alpha1.TombstoneList
		if err := api.List(ctx, &list); err != nil {
			return "", err
		}
		for _, s := range list.Items {
			for _, c := range s.Spec.Clusters {
				if c == cluster && s.Spec.Object.Namespace == guest && s.Spec.Object.Name == name {
					return "", nil
				}
			}
		}
		return fmt.Sprintf("none of %d tombstones names it", len(list.Items)), nil
	})
	if err != nil {
		t.Error(err)
	}
}
