package controller

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/placement"
)

// bury commits a tombstone for each (object, cluster) that a step drops. It
// returns the newest of their revisions, 0 if there are none. The names follow from the committed
// decision, so that a step that is repeated makes no second one.
func (c *Controller) bury(ctx context.Context, p *v1alpha1.Placement, step placement.Transition, handOver bool) (int64, error) {
	burials := step.Burials()
	if err := c.confirmClusters(ctx, burials); err != nil {
		return 0, err
	}
	newest := int64(0)
	for _, b := range burials {
		live, err := c.confirm(ctx, p, b.Object, step.Templates)
		if err != nil {
			return 0, err
		}
		heir, err := c.heir(ctx, p, live, handOver)
		if err != nil {
			return 0, err
		}
		for _, cluster := range b.Clusters {
			if _, inherits := shareOf(heir.Status.Decisions, cluster); inherits {
				continue
			}
			tombstone := &v1alpha1.Tombstone{
				ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.NamespaceSystem, Name: tombstoneName(p, b.Object, cluster)},
				Spec: v1alpha1.TombstoneSpec{
					Object: b.Object, Clusters: []string{cluster}, Reason: b.Reason, Placement: p.Namespace + "/" + p.Name,
					Revision: c.nextRevision(p, nil, 0),
				},
			}
			if err := c.create(ctx, tombstone); err != nil {
				return 0, err
			}
			newest = max(newest, tombstone.Spec.Revision)
			c.config.Log.Info("ordered a burial", "placement", tombstone.Spec.Placement, "cluster", cluster,
				"kind", b.Object.Kind, "name", b.Object.Name, "reason", b.Reason)
		}
	}
	return newest, nil
}

// confirm asks the store about a template that the catalog lacks: a burial is
// ordered on a committed deletion, never on a copy that may be behind.
func (c *Controller) confirm(ctx context.Context, p *v1alpha1.Placement, ref v1alpha1.TemplateReference, selected []v1alpha1.TemplateReference) (*unstructured.Unstructured, error) {
	live, err := c.catalog.Exists(ctx, ref)
	if err != nil {
		return nil, err
	}
	if live == nil || live.GetDeletionTimestamp() != nil || p.DeletionTimestamp != nil || placement.Contains(selected, ref) {
		return live, nil
	}
	matches, err := placement.Matches(p, live)
	if err != nil {
		return nil, err
	}
	if matches && claimedBy(c.olderThan(p), live) == nil {
		return nil, fmt.Errorf("%s is in the store: %w", placement.TemplateKey(ref), errChanging)
	}
	return live, nil
}

// confirmClusters asks the store whether the clusters are as the decision took
// them: one that seems deselected in a copy that is behind is not dropped.
func (c *Controller) confirmClusters(ctx context.Context, burials []placement.Burial) error {
	asked := map[string]bool{}
	for _, b := range burials {
		for _, name := range b.Clusters {
			if asked[name] {
				continue
			}
			asked[name] = true
			live, cached := &v1alpha1.Cluster{}, c.catalog.Cluster(name)
			if err := c.client.Get(ctx, types.NamespacedName{Name: name}, live); err != nil {
				return fmt.Errorf("read cluster %s: %w", name, err)
			}
			if cached == nil || live.Generation != cached.Generation || live.UID != cached.UID || !maps.Equal(live.Labels, cached.Labels) {
				return fmt.Errorf("cluster %s: %w", name, errChanging)
			}
		}
	}
	return nil
}

// heir is the placement that selects the template now, if there is one; where it
// has a share the object stays, under its name. It is let decide first.
func (c *Controller) heir(ctx context.Context, p *v1alpha1.Placement, live *unstructured.Unstructured, handOver bool) (*v1alpha1.Placement, error) {
	heir := &v1alpha1.Placement{}
	if live == nil || live.GetDeletionTimestamp() != nil {
		return heir, nil
	}
	rival := claimedBy(c.neighbours(p), live)
	if rival == nil {
		return heir, nil
	}
	key := client.ObjectKeyFromObject(rival)
	if handOver {
		if err := c.step(ctx, key, false); err != nil {
			return nil, err
		}
	}
	if err := c.client.Get(ctx, key, heir); client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("read placement %s: %w", key, err)
	}
	if !placement.Contains(heir.Status.Placed, placement.ReferenceOf(live)) {
		return &v1alpha1.Placement{}, nil
	}
	return heir, nil
}

func (c *Controller) create(ctx context.Context, tombstone *v1alpha1.Tombstone) error {
	err := c.client.Create(ctx, tombstone)
	if apierrors.IsNotFound(err) {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: tombstone.Namespace}}
		if err := c.client.Create(ctx, namespace); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create namespace %s for tombstones: %w", tombstone.Namespace, err)
		}
		err = c.client.Create(ctx, tombstone)
	}
	if apierrors.IsAlreadyExists(err) {
		err = c.client.Get(ctx, client.ObjectKeyFromObject(tombstone), tombstone)
	}
	if err != nil {
		return fmt.Errorf("commit the tombstone of %s in cluster %s: %w",
			placement.TemplateKey(tombstone.Spec.Object), strings.Join(tombstone.Spec.Clusters, ", "), err)
	}
	return nil
}

func tombstoneName(p *v1alpha1.Placement, ref v1alpha1.TemplateReference, cluster string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s|%d|%s|%s|%s|%s|%s",
		p.UID, p.Status.Revision, ref.APIVersion, ref.Kind, ref.Namespace, ref.Name, cluster))
	readable := strings.ToLower(ref.Kind) + "-" + strings.ReplaceAll(strings.ToLower(ref.Name), ":", "-")
	return strings.Trim(readable[:min(len(readable), 100)], ".-") + "-" + hex.EncodeToString(sum[:6])
}

// unbury takes back the tombstones of objects that are wanted again, before the
// decision that wants them is committed. It returns the newest revision taken
// back. The store is asked: a tombstone that is overlooked would win.
func (c *Controller) unbury(ctx context.Context, refs []v1alpha1.TemplateReference, shares []v1alpha1.PlacementDecision) (int64, error) {
	tombstones := &v1alpha1.TombstoneList{}
	if err := c.client.List(ctx, tombstones, client.InNamespace(v1alpha1.NamespaceSystem)); err != nil {
		return 0, fmt.Errorf("list tombstones: %w", err)
	}
	newest := int64(0)
	for i := range tombstones.Items {
		t := &tombstones.Items[i]
		if !wants(t, refs, shares) {
			continue
		}
		if err := c.remove(ctx, t); err != nil {
			return 0, err
		}
		newest = max(newest, t.Spec.Revision)
	}
	return newest, nil
}

// buried tells whether a tombstone in the catalog names something wanted.
func (c *Controller) buried(refs []v1alpha1.TemplateReference, shares []v1alpha1.PlacementDecision) bool {
	return slices.ContainsFunc(c.catalog.Tombstones(), func(t *v1alpha1.Tombstone) bool { return wants(t, refs, shares) })
}

// wants tells whether the shares put the tombstone's object where it is to be
// buried.
func wants(t *v1alpha1.Tombstone, refs []v1alpha1.TemplateReference, shares []v1alpha1.PlacementDecision) bool {
	return placement.Contains(refs, t.Spec.Object) && slices.ContainsFunc(t.Spec.Clusters, func(cluster string) bool {
		_, has := shareOf(shares, cluster)
		return has
	})
}

func (c *Controller) remove(ctx context.Context, t *v1alpha1.Tombstone) error {
	uid := t.UID
	err := c.client.Delete(ctx, t, client.Preconditions{UID: &uid})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("take back tombstone %s: %w", t.Name, err)
	}
	return nil
}

// tendTombstones notes which tombstones the clusters have carried out, and
// removes those that every cluster has. A cluster that left the fleet is owed
// nothing.
func (c *Controller) tendTombstones(ctx context.Context) error {
	for _, t := range c.catalog.Tombstones() {
		var acknowledged []string
		open := 0
		for _, cluster := range t.Spec.Clusters {
			done := slices.Contains(t.Status.Acknowledged, cluster) ||
				slices.Contains(c.reports.of(cluster).GetBuried(), t.Namespace+"/"+t.Name)
			if done {
				acknowledged = append(acknowledged, cluster)
			}
			if !done && c.catalog.Cluster(cluster) != nil {
				open++
			}
		}
		if len(acknowledged) > len(t.Status.Acknowledged) {
			t = t.DeepCopy()
			t.Status.Acknowledged = acknowledged
			if err := c.client.Status().Update(ctx, t); err != nil {
				if apierrors.IsNotFound(err) {
					continue
				}
				return fmt.Errorf("note the acknowledgements of tombstone %s: %w", t.Name, err)
			}
		}
		if open > 0 {
			continue
		}
		if err := c.close(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// close removes a tombstone that is carried out. Each cluster keeps its
// revision, so that what the cluster is told next is not of an older state.
func (c *Controller) close(ctx context.Context, t *v1alpha1.Tombstone) error {
	for _, name := range t.Spec.Clusters {
		cluster := c.catalog.Cluster(name)
		if cluster == nil {
			continue
		}
		if revision := t.Spec.Revision; cluster.Status.BuriedRevision < revision {
			patch := fmt.Appendf(nil, `{"status":{"buriedRevision":%d}}`, revision)
			err := c.client.Status().Patch(ctx, cluster.DeepCopy(), client.RawPatch(types.MergePatchType, patch))
			if err != nil && !apierrors.IsNotFound(err) {
				return fmt.Errorf("note the burials of cluster %s: %w", name, err)
			}
		}
	}
	return c.remove(ctx, t)
}
