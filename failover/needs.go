package failover

import (
	"fmt"
	"slices"
	"strings"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// What a recovery to a cluster would need there beside the data. It is asked all the
// time, so that what is missing is named before a disaster.

// needs asks it of one target for all placements and names of an application. A
// cluster whose agent has told nothing of itself yet is not asked.
func (s *Snapshot) needs(app *v1alpha1.Application, services []*v1alpha1.GlobalService, active, target string) []v1alpha1.PreflightCheck {
	checks := []v1alpha1.PreflightCheck{addressed(services, target)}
	k := s.Kubernetes[target]
	if k == nil {
		return checks
	}
	room := check("Capacity", target)
	storage, kinds, images := check("StorageClass", target), check("CustomKinds", target), check("Images", target)
	free := v1alpha1.Resources{CPU: k.Allocatable.CPU.DeepCopy(), Memory: k.Allocatable.Memory.DeepCopy()}
	free.CPU.Sub(k.Requested.CPU)
	free.Memory.Sub(k.Requested.Memory)
	for _, p := range s.placementsOf(app) {
		n := p.Status.Needs
		if n == nil {
			continue
		}
		lacks(&storage, p, "storage class", n.StorageClasses, k.StorageClasses)
		lacks(&kinds, p, "kind", n.CustomKinds, k.CustomKinds)
		for _, image := range n.Images {
			if slices.Contains(k.MissingImages, image) {
				fail(&images, fmt.Sprintf("pods wait in vain for image %s, which placement %s names", image, p.Name))
			}
		}
		if p.Spec.WhenLost != v1alpha1.WhenLostMove {
			continue // what stands in for the active side runs there already
		}
		for _, share := range n.Shares {
			if share.Cluster == active {
				free.CPU.Sub(share.Requests.CPU)
				free.Memory.Sub(share.Requests.Memory)
			}
		}
	}
	switch {
	case slices.Contains(k.Crowded, app.Namespace):
		fail(&room, "pods of namespace "+app.Namespace+" find no room there already")
	case free.CPU.Sign() < 0 || free.Memory.Sign() < 0:
		fail(&room, fmt.Sprintf("with what runs in %s it would lack %s: add nodes or free some", active, shortage(free)))
	}
	return append(checks, room, storage, kinds, images)
}

// placementsOf an application that exist.
func (s *Snapshot) placementsOf(app *v1alpha1.Application) []*v1alpha1.Placement {
	var all []*v1alpha1.Placement
	for _, p := range s.Placements {
		if p.Namespace == app.Namespace && slices.Contains(app.Spec.Placements, p.Name) {
			all = append(all, p)
		}
	}
	return all
}

// addressed asks whether clients would find the application at a target.
func addressed(services []*v1alpha1.GlobalService, target string) v1alpha1.PreflightCheck {
	c := check("DNS", target)
	for _, g := range services {
		if !slices.ContainsFunc(g.Spec.Endpoints, func(e v1alpha1.ServiceEndpoint) bool { return e.Cluster == target }) {
			fail(&c, fmt.Sprintf("%s has no endpoint there: add one to GlobalService %s", g.Spec.Host, g.Name))
		}
	}
	return c
}

func lacks(c *v1alpha1.PreflightCheck, p *v1alpha1.Placement, what string, wanted, there []string) {
	for _, name := range wanted {
		if !slices.Contains(there, name) {
			fail(c, fmt.Sprintf("%s %s, which placement %s names, is not there", what, name, p.Name))
		}
	}
}

func shortage(free v1alpha1.Resources) string {
	var out []string
	if free.CPU.Sign() < 0 {
		free.CPU.Neg()
		out = append(out, free.CPU.String()+" of cpu")
	}
	if free.Memory.Sign() < 0 {
		free.Memory.Neg()
		out = append(out, free.Memory.String()+" of memory")
	}
	return strings.Join(out, " and ")
}

func check(name, target string) v1alpha1.PreflightCheck {
	return v1alpha1.PreflightCheck{Check: name, Target: target, Result: v1alpha1.PreflightPassed}
}

// fail names the first thing that is missing.
func fail(c *v1alpha1.PreflightCheck, message string) {
	if c.Result == v1alpha1.PreflightPassed {
		c.Result, c.Message = v1alpha1.PreflightFailed, message
	}
}
