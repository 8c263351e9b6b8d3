package controller

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/placement"
	"tripod.dev/tripod/placement/render"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// maxFailures bounds what a status says of one cluster.
const maxFailures = 8

func (c *Controller) setScheduled(p *v1alpha1.Placement, reason placement.Reason, message string) {
	status := metav1.ConditionFalse
	if reason == placement.ReasonScheduled {
		status = metav1.ConditionTrue
	}
	c.set(p, v1alpha1.ConditionScheduled, status, string(reason), message)
}

func (c *Controller) set(p *v1alpha1.Placement, kind string, status metav1.ConditionStatus, reason, message string) {
	if len(message) > 2048 {
		message = message[:2045] + "..."
	}
	meta.SetStatusCondition(&p.Status.Conditions, metav1.Condition{
		Type: kind, Status: status, Reason: reason, Message: message,
		ObservedGeneration: p.Generation, LastTransitionTime: metav1.NewTime(c.config.Now()),
	})
}

// describe fills in what became of the decision in the clusters.
func (c *Controller) describe(p *v1alpha1.Placement, picked selection) {
	p.Status.ObservedGeneration = p.Generation
	if len(picked.conflicts) > 0 {
		c.set(p, v1alpha1.ConditionConflict, metav1.ConditionTrue, "TemplateConflict",
			"an older placement has "+strings.Join(picked.conflicts, ", ")+": select each template in one placement only")
	} else {
		meta.RemoveStatusCondition(&p.Status.Conditions, v1alpha1.ConditionConflict)
	}
	refused := c.refusals(p, picked)
	var clusters []v1alpha1.PlacementClusterStatus
	for _, share := range p.Status.Decisions {
		clusters = append(clusters, c.clusterStatus(p, share.Cluster, refused[share.Cluster]))
	}
	p.Status.Clusters = clusters
	p.Status.Needs = needs(p.Status.Decisions, picked.objects)
	c.summarize(p)
}

// refusals are what cannot be rendered, by cluster.
func (c *Controller) refusals(p *v1alpha1.Placement, picked selection) map[string][]string {
	out := map[string][]string{}
	for _, share := range p.Status.Decisions {
		cluster := c.catalog.Cluster(share.Cluster)
		if cluster == nil {
			continue
		}
		target := render.Target{
			Cluster: placement.ClusterFrom(cluster), Share: share, Overrides: p.Spec.Overrides, Placement: p.Namespace + "/" + p.Name,
		}
		for _, o := range picked.objects {
			if _, err := render.Render(o, target); err != nil {
				out[share.Cluster] = append(out[share.Cluster], err.Error())
			}
		}
	}
	return out
}

// clusterStatus counts what a cluster has reported of this decision. Without a
// report the last committed counts stand, with their age.
func (c *Controller) clusterStatus(p *v1alpha1.Placement, cluster string, refused []string) v1alpha1.PlacementClusterStatus {
	old := v1alpha1.PlacementClusterStatus{Cluster: cluster}
	if i := slices.IndexFunc(p.Status.Clusters, func(s v1alpha1.PlacementClusterStatus) bool { return s.Cluster == cluster }); i >= 0 {
		old = p.Status.Clusters[i]
	}
	report := c.reports.of(cluster)
	if report == nil && len(refused) == 0 {
		return old
	}
	now := v1alpha1.PlacementClusterStatus{Cluster: cluster, Failures: slices.Clone(refused)}
	for _, o := range report.GetObjects() {
		if o.GetPlacement() != p.Namespace+"/"+p.Name {
			continue
		}
		if o.GetApplied() && o.GetRevision() >= p.Status.Revision {
			now.Applied++
		}
		if o.GetApplied() && o.GetHealthy() {
			now.Healthy++
		}
		if failure := describeFailure(o); failure != "" {
			now.Failures = append(now.Failures, failure)
		}
	}
	slices.Sort(now.Failures)
	now.Failures = now.Failures[:min(len(now.Failures), maxFailures)]
	now.UpdatedAt = old.UpdatedAt
	if now.Applied != old.Applied || now.Healthy != old.Healthy || !slices.Equal(now.Failures, old.Failures) || old.UpdatedAt.IsZero() {
		now.UpdatedAt = metav1.NewTime(c.config.Now()).Rfc3339Copy()
	}
	return now
}

func describeFailure(o *agentv1.AppliedObject) string {
	if o.GetApplied() && o.GetHealthy() {
		return ""
	}
	return fmt.Sprintf("%s %s: %s", o.GetKey().GetKind(), o.GetKey().GetName(), cmp.Or(o.GetMessage(), "not healthy"))
}

// summarize sets conditions Applied and Healthy from the counts.
func (c *Controller) summarize(p *v1alpha1.Placement) {
	want := int32(len(p.Status.Placed))
	if want == 0 || len(p.Status.Decisions) == 0 {
		c.set(p, v1alpha1.ConditionApplied, metav1.ConditionFalse, "NothingPlaced", "nothing is placed")
		c.set(p, v1alpha1.ConditionHealthy, metav1.ConditionFalse, "NothingPlaced", "nothing is placed")
		return
	}
	var silent, unapplied, unhealthy []string
	for _, s := range p.Status.Clusters {
		first := ""
		if len(s.Failures) > 0 {
			first = ": " + s.Failures[0]
		}
		if s.UpdatedAt.IsZero() {
			silent = append(silent, s.Cluster)
		}
		if s.Applied < want {
			unapplied = append(unapplied, fmt.Sprintf("%s: %d of %d applied%s", s.Cluster, s.Applied, want, first))
		}
		if s.Healthy < want {
			unhealthy = append(unhealthy, fmt.Sprintf("%s: %d of %d healthy%s", s.Cluster, s.Healthy, want, first))
		}
	}
	c.summary(p, v1alpha1.ConditionApplied, "Applied", silent, unapplied)
	c.summary(p, v1alpha1.ConditionHealthy, "Healthy", silent, unhealthy)
}

func (c *Controller) summary(p *v1alpha1.Placement, kind, reason string, silent, missing []string) {
	switch {
	case len(missing) == 0:
		c.set(p, kind, metav1.ConditionTrue, reason, "in every cluster decided for")
	case len(silent) == len(missing):
		c.set(p, kind, metav1.ConditionUnknown, "NotReported", "no report yet from "+strings.Join(silent, ", "))
	default:
		c.set(p, kind, metav1.ConditionFalse, "Not"+reason, strings.Join(missing, "; "))
	}
}
