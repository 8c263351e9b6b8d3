package controller

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/placement"
	"tripod.dev/tripod/placement/render"
)

// errChanging: what was read does not fit together yet; it will in a moment.
var errChanging = errors.New("the catalog is behind the store")

// reconcile brings one placement one step further. The placement is read from
// the store: a decision made from a stale one could order a burial twice.
func (c *Controller) reconcile(ctx context.Context, key types.NamespacedName) error {
	return c.step(ctx, key, true)
}

// step is reconcile; with handOver, the placements that take templates over from
// this one decide first, so that what stays where it is is not buried.
func (c *Controller) step(ctx context.Context, key types.NamespacedName, handOver bool) error {
	p := &v1alpha1.Placement{}
	err := c.client.Get(ctx, key, p)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read placement %s: %w", key, err)
	}
	if p.DeletionTimestamp != nil {
		return c.release(ctx, p, handOver)
	}
	if controllerutil.AddFinalizer(p, v1alpha1.FinalizerPlaced) {
		if err := c.client.Update(ctx, p); err != nil {
			return fmt.Errorf("hold placement %s until its objects are buried: %w", key, err)
		}
	}
	before := p.Status.DeepCopy()
	picked := c.gather(p)
	switch {
	case picked.pending:
		return nil
	case picked.problem != "":
		c.setScheduled(p, picked.reason, picked.problem)
	default:
		if err := c.decide(ctx, p, picked, handOver); err != nil {
			return err
		}
	}
	c.describe(p, picked)
	if reflect.DeepEqual(before, &p.Status) {
		return nil
	}
	if err := c.client.Status().Update(ctx, p); err != nil {
		return fmt.Errorf("commit the decision of placement %s: %w", key, err)
	}
	return nil
}

// decide schedules, and commits tombstones, before the caller commits the status.
func (c *Controller) decide(ctx context.Context, p *v1alpha1.Placement, picked selection, handOver bool) error {
	previous := placement.Previous{Shares: p.Status.Decisions, Left: p.Status.Left}
	clusters := c.clusters()
	decision := placement.Schedule(placement.Snapshot{
		Placement: p, Templates: picked.templates(), Clusters: clusters, Previous: previous,
	})
	step := placement.Transition{
		Placed: p.Status.Placed, Previous: previous,
		Templates: picked.references(), Next: decision, Clusters: clusters,
	}
	newest, err := c.bury(ctx, p, step, handOver)
	if err != nil {
		return err
	}
	digest, err := render.Digest(p.Spec.Overrides, decision.Shares, picked.objects)
	if err != nil {
		return fmt.Errorf("digest placement %s/%s: %w", p.Namespace, p.Name, err)
	}
	if digest != p.Status.Digest || c.buried(step.Templates, decision.Shares) {
		unburied, err := c.unbury(ctx, step.Templates, decision.Shares)
		if err != nil {
			return err
		}
		newest = max(newest, unburied)
	}
	p.Status.Decisions, p.Status.Rejected, p.Status.Left = decision.Shares, decision.Rejected, decision.Left
	p.Status.Placed = step.Templates
	if digest != p.Status.Digest || newest > 0 {
		p.Status.Digest = digest
		p.Status.Revision = c.nextRevision(p, picked.objects, newest)
	}
	c.setScheduled(p, decision.Reason, decision.Message)
	return nil
}

// nextRevision is newer than all that the decision was made of, and than every
// decision that may have had the templates before, and not newer than the commit
// of the decision itself. So a tombstone committed before a decision is older
// than it, and one committed after is newer.
func (c *Controller) nextRevision(p *v1alpha1.Placement, templates []*unstructured.Unstructured, newest int64) int64 {
	newest = max(newest, revisionOf(p.ResourceVersion), p.Status.Revision)
	for _, o := range c.catalog.Placements() {
		if o.Namespace == p.Namespace {
			newest = max(newest, o.Status.Revision)
		}
	}
	for _, t := range templates {
		newest = max(newest, revisionOf(t.GetResourceVersion()))
	}
	return newest + 1
}

// revisionOf reads a resource version, which in the hub is a revision of the
// store.
func revisionOf(resourceVersion string) int64 {
	n, err := strconv.ParseInt(resourceVersion, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// release buries what a deleted placement has placed, then lets it go.
func (c *Controller) release(ctx context.Context, p *v1alpha1.Placement, handOver bool) error {
	if !controllerutil.ContainsFinalizer(p, v1alpha1.FinalizerPlaced) {
		return nil
	}
	step := placement.Transition{
		Placed: p.Status.Placed, Clusters: c.clusters(), Ends: true,
		Previous: placement.Previous{Shares: p.Status.Decisions, Left: p.Status.Left},
	}
	if _, err := c.bury(ctx, p, step, handOver); err != nil {
		return err
	}
	controllerutil.RemoveFinalizer(p, v1alpha1.FinalizerPlaced)
	if err := c.client.Update(ctx, p); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("let placement %s/%s go: %w", p.Namespace, p.Name, err)
	}
	return nil
}

func (c *Controller) clusters() []placement.Cluster {
	var out []placement.Cluster
	for _, cluster := range c.catalog.Clusters() {
		out = append(out, placement.ClusterFrom(cluster))
	}
	return out
}

// shareOf finds a cluster's share.
func shareOf(shares []v1alpha1.PlacementDecision, cluster string) (v1alpha1.PlacementDecision, bool) {
	i := slices.IndexFunc(shares, func(s v1alpha1.PlacementDecision) bool { return s.Cluster == cluster })
	if i < 0 {
		return v1alpha1.PlacementDecision{}, false
	}
	return shares[i], true
}
