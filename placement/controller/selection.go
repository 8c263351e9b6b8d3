package controller

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/placement"
	"tripod.dev/tripod/placement/catalog"
)

// Reasons of condition Scheduled beside those of placement.Decision.
const (
	reasonKindUnknown      placement.Reason = "KindUnknown"
	reasonKindNotPlaceable placement.Reason = "KindNotPlaceable"
)

// selection is what a placement selects now.
type selection struct {
	// objects are the templates, sorted.
	objects []*unstructured.Unstructured
	// conflicts name templates that an older placement has.
	conflicts []string
	// pending: a kind is still being read; nothing can be said yet.
	pending bool
	// problem, if any, forbids deciding: what was decided stands.
	reason  placement.Reason
	problem string
}

func (s selection) templates() []placement.Template {
	var out []placement.Template
	for _, o := range s.objects {
		out = append(out, placement.TemplateFrom(o))
	}
	return out
}

func (s selection) references() []v1alpha1.TemplateReference {
	var out []v1alpha1.TemplateReference
	for _, o := range s.objects {
		out = append(out, placement.ReferenceOf(o))
	}
	return out
}

// gather finds the templates that a placement selects. A kind that is not
// served, or not read yet, says nothing about its templates: the whole decision
// then stands, for an absent answer must not be taken for absent templates.
func (c *Controller) gather(p *v1alpha1.Placement) selection {
	var s selection
	name := p.Namespace + "/" + p.Name
	rivals := c.olderThan(p)
	seen := map[schema.GroupVersionKind]bool{}
	kinds := slices.Concat(selectedKinds(p), placedKinds(p))
	for i, gvk := range kinds {
		if seen[gvk] {
			continue
		}
		seen[gvk] = true
		if gvk.Group == v1alpha1.GroupVersion.Group {
			return selection{reason: reasonKindNotPlaceable, problem: fmt.Sprintf(
				"placement %s selects %s, which is the hub's own: take it out of spec.resources", name, gvk.Kind)}
		}
		namespace := p.Namespace
		if v1alpha1.ClusterWideRights(gvk.Group, gvk.Kind) {
			if namespace != v1alpha1.NamespaceSystem {
				return selection{reason: reasonKindNotPlaceable, problem: fmt.Sprintf(
					"placement %s selects %s, which gives rights in whole clusters: only a placement in namespace %s can; take it out of spec.resources",
					name, gvk.Kind, v1alpha1.NamespaceSystem)}
			}
			namespace = ""
		}
		objects, state := c.catalog.Templates(gvk, namespace)
		switch state {
		case catalog.KindPending:
			return selection{pending: true}
		case catalog.KindUnknown:
			return selection{reason: reasonKindUnknown, problem: fmt.Sprintf(
				"placement %s names %s %s, which the hub does not serve: install its CRD in the hub or correct spec.resources; what runs is left as it is",
				name, gvk.GroupVersion(), gvk.Kind)}
		case catalog.KindClusterScoped:
			return selection{reason: reasonKindNotPlaceable, problem: fmt.Sprintf(
				"placement %s selects %s %s, whose objects are in no namespace: a placement places what is in its own; take it out of spec.resources",
				name, gvk.GroupVersion(), gvk.Kind)}
		}
		if i >= len(p.Spec.Resources) {
			continue
		}
		if problem := s.take(p, objects, rivals); problem != "" {
			return selection{reason: placement.ReasonInvalid, problem: problem}
		}
	}
	slices.SortFunc(s.objects, func(a, b *unstructured.Unstructured) int {
		return placement.CompareReferences(placement.ReferenceOf(a), placement.ReferenceOf(b))
	})
	slices.Sort(s.conflicts)
	return s
}

// take adds the selected ones of one kind's templates.
func (s *selection) take(p *v1alpha1.Placement, objects []*unstructured.Unstructured, rivals []*v1alpha1.Placement) string {
	for _, o := range objects {
		matches, err := placement.Matches(p, o)
		if err != nil {
			return fmt.Sprintf("placement %s/%s: %v: correct spec.resources", p.Namespace, p.Name, err)
		}
		if !matches || o.GetDeletionTimestamp() != nil {
			continue
		}
		if owner := claimedBy(rivals, o); owner != nil {
			s.conflicts = append(s.conflicts, fmt.Sprintf("%s %s (placement %s)", o.GetKind(), o.GetName(), owner.Name))
			continue
		}
		s.objects = append(s.objects, o)
	}
	return ""
}

// claimedBy is a placement that selects the template, or nil.
func claimedBy(rivals []*v1alpha1.Placement, obj *unstructured.Unstructured) *v1alpha1.Placement {
	for _, rival := range rivals {
		if matches, err := placement.Matches(rival, obj); err == nil && matches {
			return rival
		}
	}
	return nil
}

// olderThan are the placements which go before p when both select a template.
func (c *Controller) olderThan(p *v1alpha1.Placement) []*v1alpha1.Placement {
	return slices.DeleteFunc(c.neighbours(p), func(o *v1alpha1.Placement) bool {
		if o.CreationTimestamp.Equal(&p.CreationTimestamp) {
			return strings.Compare(o.Name, p.Name) > 0
		}
		return p.CreationTimestamp.Before(&o.CreationTimestamp)
	})
}

// neighbours are the other placements of the namespace that are to stay.
func (c *Controller) neighbours(p *v1alpha1.Placement) []*v1alpha1.Placement {
	var out []*v1alpha1.Placement
	for _, o := range c.catalog.Placements() {
		if o.Namespace == p.Namespace && o.Name != p.Name && o.DeletionTimestamp == nil {
			out = append(out, o)
		}
	}
	return out
}

func selectedKinds(p *v1alpha1.Placement) []schema.GroupVersionKind {
	var out []schema.GroupVersionKind
	for _, r := range p.Spec.Resources {
		out = append(out, schema.FromAPIVersionAndKind(r.APIVersion, r.Kind))
	}
	return out
}

func placedKinds(p *v1alpha1.Placement) []schema.GroupVersionKind {
	var out []schema.GroupVersionKind
	for _, r := range p.Status.Placed {
		out = append(out, schema.FromAPIVersionAndKind(r.APIVersion, r.Kind))
	}
	return out
}
