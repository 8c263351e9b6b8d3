package applier

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"google.golang.org/protobuf/proto"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"tripod.dev/tripod/hub/api/v1alpha1"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// errNoKind: the cluster's API server does not serve the kind.
var errNoKind = errors.New("the cluster does not serve this kind: install its CRD there, or place the CRD too")

// managedBy is the value of the label that marks what we may delete.
const managedBy = "tripod"

// next does one object. It returns false when the queue is shut down.
func (a *Applier) next(ctx context.Context) bool {
	id, shutdown := a.queue.Get()
	if shutdown {
		return false
	}
	defer a.queue.Done(id)
	a.mu.Lock()
	o, wanted := a.ledger.orders[id]
	active := a.active
	a.mu.Unlock()
	if !wanted || !active || ctx.Err() != nil {
		a.queue.Forget(id)
		return true
	}
	again := false
	if o.tombstone != "" {
		again = a.bury(ctx, id, o)
	} else {
		again = a.apply(ctx, id, o)
	}
	a.lookedAt(id)
	if again && ctx.Err() == nil {
		a.queue.AddRateLimited(id)
	} else {
		a.queue.Forget(id)
	}
	return true
}

// lookedAt notes that an object has been tried since this replica became active.
func (a *Applier) lookedAt(id identity) {
	a.mu.Lock()
	last := a.unseen[id] && len(a.unseen) == 1
	delete(a.unseen, id)
	a.mu.Unlock()
	if last {
		a.touch()
	}
}

// apply makes one object as wanted. It returns whether to try again.
func (a *Applier) apply(ctx context.Context, id identity, o order) bool {
	result := &agentv1.AppliedObject{Key: o.key, Placement: o.placement, Revision: o.seen.Revision}
	live, err := a.makeSo(ctx, id, o)
	if err != nil {
		result.Message = err.Error()
	} else {
		result.Applied = true
		result.Healthy, result.Message = health(live)
	}
	a.note(id, o, result)
	return err != nil
}

func (a *Applier) makeSo(ctx context.Context, id identity, o order) (*unstructured.Unstructured, error) {
	wanted := &unstructured.Unstructured{}
	if err := wanted.UnmarshalJSON(o.manifest); err != nil {
		return nil, fmt.Errorf("read the manifest from the hub: %w", err)
	}
	live, err := a.cluster.get(ctx, o.key)
	switch {
	case err == nil && o.seen.Before(stampOf(live)):
		return nil, fmt.Errorf("a newer revision %d is applied already; the hub's revision %d waits until it has caught up", stampOf(live).Revision, o.seen.Revision)
	case err == nil && foreignRights(live):
		return nil, fmt.Errorf("%s %s is in the cluster already and not ours: give the one of the hub another name, or delete this one", id.kind, id.name)
	case err == nil && covers(live.Object, wanted.Object):
		a.cluster.watch(o.key, a.changed)
		return live, nil
	case err != nil && !apierrors.IsNotFound(err):
		return nil, fmt.Errorf("read %s %s/%s: %w", id.kind, id.namespace, id.name, err)
	}
	applied, err := a.cluster.apply(ctx, wanted)
	if err != nil {
		return nil, fmt.Errorf("apply %s %s/%s: %w", id.kind, id.namespace, id.name, err)
	}
	a.cluster.watch(o.key, a.changed)
	return applied, nil
}

// foreignRights are rights in the whole cluster that somebody else gave. Taking them
// over would change what they are for all whom they are bound to.
func foreignRights(live *unstructured.Unstructured) bool {
	kind := live.GroupVersionKind()
	return v1alpha1.ClusterWideRights(kind.Group, kind.Kind) && live.GetLabels()[v1alpha1.LabelManagedBy] != managedBy
}

// bury deletes one object for a tombstone. It returns whether to try again: a
// tombstone is acknowledged only when the object is surely gone.
func (a *Applier) bury(ctx context.Context, id identity, o order) bool {
	live, err := a.cluster.get(ctx, o.key)
	switch {
	case apierrors.IsNotFound(err), errors.Is(err, errNoKind):
		a.acknowledge(id, o)
		return false
	case err != nil:
		a.config.Log.Warn("could not read the object of a tombstone", "tombstone", o.tombstone, "error", err)
		return true
	case live.GetLabels()[v1alpha1.LabelManagedBy] != managedBy:
		a.config.Log.Warn("left the object of a tombstone in place: it is not ours", "tombstone", o.tombstone,
			"kind", id.kind, "namespace", id.namespace, "name", id.name)
		a.acknowledge(id, o)
		return false
	case o.seen.Before(stampOf(live)):
		a.config.Log.Warn("refused a tombstone older than the object", "tombstone", o.tombstone,
			"revision", o.seen.Revision, "applied", stampOf(live).Revision)
		return true
	}
	if live.GetDeletionTimestamp() == nil {
		err := a.cluster.remove(ctx, live)
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			a.config.Log.Warn("could not delete the object of a tombstone", "tombstone", o.tombstone, "error", err)
		}
	}
	a.cluster.watch(o.key, a.changed)
	return true
}

// note records a result unless a newer order has come meanwhile.
func (a *Applier) note(id identity, o order, result *agentv1.AppliedObject) {
	a.mu.Lock()
	current, wanted := a.ledger.orders[id]
	changed := wanted && current.same(o) && !proto.Equal(a.results[id], result)
	if changed {
		a.results[id] = result
	}
	a.mu.Unlock()
	if changed {
		a.touch()
	}
}

func (a *Applier) acknowledge(id identity, o order) {
	a.mu.Lock()
	current, wanted := a.ledger.orders[id]
	changed := wanted && current.same(o) && a.buried[id] != o.tombstone
	if changed {
		a.buried[id] = o.tombstone
		delete(a.results, id)
	}
	a.mu.Unlock()
	if changed {
		a.touch()
	}
}

// stampOf reads what the live object was rendered from. An object without our
// label has no stamp: the annotations may have been copied.
func stampOf(obj *unstructured.Unstructured) Seen {
	if obj.GetLabels()[v1alpha1.LabelManagedBy] != managedBy {
		return Seen{}
	}
	annotations := obj.GetAnnotations()
	incarnation, _ := strconv.ParseUint(annotations[v1alpha1.AnnotationIncarnation], 10, 64)
	revision, _ := strconv.ParseInt(annotations[v1alpha1.AnnotationRevision], 10, 64)
	return Seen{incarnation, revision}
}

// covers tells whether live has every field of wanted. Where a server writes a
// value in another form (quantities) it says no, and an apply follows that
// changes nothing.
func covers(live, wanted any) bool {
	switch w := wanted.(type) {
	case map[string]any:
		l, ok := live.(map[string]any)
		if !ok {
			return len(w) == 0 && live == nil
		}
		for k, v := range w {
			if !covers(l[k], v) {
				return false
			}
		}
		return true
	case []any:
		l, ok := live.([]any)
		if !ok || len(l) != len(w) {
			return len(w) == 0 && live == nil
		}
		for i := range w {
			if !covers(l[i], w[i]) {
				return false
			}
		}
		return true
	default:
		return live == wanted
	}
}

// rank orders kinds so that what others need comes first. A wrong order costs a
// retry, nothing more.
var rank = map[string]int{
	"CustomResourceDefinition": 1, "Namespace": 2, "ServiceAccount": 3, "Role": 4, "ClusterRole": 4,
	"RoleBinding": 5, "ClusterRoleBinding": 5, "Secret": 6, "ConfigMap": 6, "PersistentVolumeClaim": 7, "Service": 8,
}

func inOrder(ids []identity) []identity {
	order := func(id identity) int {
		if r, ok := rank[id.kind]; ok {
			return r
		}
		return 9
	}
	slices.SortFunc(ids, func(a, b identity) int {
		return cmp.Or(cmp.Compare(order(a), order(b)), cmp.Compare(a.kind, b.kind),
			cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.name, b.name))
	})
	return ids
}

func sortStatus(status *agentv1.AppliedStatus) {
	slices.SortFunc(status.Objects, func(a, b *agentv1.AppliedObject) int {
		return cmp.Or(cmp.Compare(a.Key.Kind, b.Key.Kind), cmp.Compare(a.Key.Namespace, b.Key.Namespace), cmp.Compare(a.Key.Name, b.Key.Name))
	})
	slices.Sort(status.Buried)
}
