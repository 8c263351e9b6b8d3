package failover

import (
	"fmt"
	"slices"
	"strings"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// Pledgers are the members whose promise may keep the primary of d alive while
// the hub is gone (safety.md section 7): the rest of the committed sync set; if
// there is none, the other members in the primary's region, or all others. A
// grant of the primary role names them; the primary adds whom its copy surely
// waits for (pledge.Needed). So a member of the committed sync set is always one
// of those whose pledge the primary needs, however old its grant: it waited for
// that member before the hub committed it.
func Pledgers(f Fleet, d *v1alpha1.Dataset) []string {
	primary := d.Status.Primary
	if others := without(d.Status.SyncSet, primary); len(others) > 0 {
		return others
	}
	var all, near []string
	home, _ := f.Cluster(primary)
	for _, m := range d.Spec.Members {
		if m.Cluster == primary || memberStatus(d, m.Cluster) == nil {
			continue // one that was never reported could leave without a trace
		}
		all = append(all, m.Cluster)
		if c, ok := f.Cluster(m.Cluster); ok && c.Region == home.Region {
			near = append(near, m.Cluster)
		}
	}
	if len(near) > 0 {
		return near
	}
	return all
}

// failsafe is true when pledges may keep the primary of d, or what was the primary
// before a role change that is not proven yet.
func (s *Snapshot) failsafe(d *v1alpha1.Dataset) bool { return s.Config.Pledges && d.Status.Failsafe }

// offerable is true when every pledger of d can be asked. Only then is it committed
// that pledges may keep the primary, and only after that does a grant offer them.
func (p *protection) offerable() bool {
	pledgers := Pledgers(p.Fleet, p.was)
	return p.Config.Pledges && len(pledgers) > 0 && !slices.ContainsFunc(pledgers, func(name string) bool {
		c, ok := p.Fleet.Cluster(name)
		return !ok || c.AgentAddress == ""
	})
}

func without(names []string, name string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == name })
}

// withholders are the members that must acknowledge the new epoch before elapsed
// time proves that cluster has stopped (safety.md section 6). The committed sync
// set is the one of when the fence began: it does not change while a run owns the
// dataset.
//
// Nobody is needed when the coming primary is in it: then its own pledge is one
// of those that the old primary needs, and it accepts the promotion only when its
// last one is over. If the old primary was alone in it, nobody knows whose pledges
// its last grant asked for, but at least one it needs; it may be of a cluster that
// is no member any more.
func (s *Snapshot) withholders(d *v1alpha1.Dataset, cluster string) []string {
	target := d.Status.Primary
	others := without(d.Status.SyncSet, cluster)
	switch {
	case !s.failsafe(d) && d.Status.Lingers != cluster || slices.Contains(others, target):
		return nil
	case len(others) > 0:
		return others
	}
	for _, m := range d.Spec.Members {
		others = append(others, m.Cluster)
	}
	for _, former := range d.Status.FormerMembers {
		if !slices.Contains(others, former) {
			others = append(others, former)
		}
	}
	return slices.DeleteFunc(others, func(name string) bool { return name == cluster || name == target })
}

// withheld asks every withholder for its acknowledgement, all at once. The finding
// is empty when all have answered.
func (x *step) withheld(d *v1alpha1.Dataset, cluster, name string) finding {
	var missing, lost []string
	for _, p := range x.withholders(d, cluster) {
		step := name + "." + stepWithhold + "." + p
		if j := journal(&x.was.Run.Status, step, d.Name); j != nil && j.State == v1alpha1.StepSucceeded {
			continue
		}
		missing = append(missing, p)
		result, done := x.carry(step, Command{Cluster: p, Dataset: key(d), Verb: VerbWithhold, Epoch: d.Status.Epoch, Primary: d.Status.Primary})
		switch {
		case done && result.Outcome == Done:
			x.finish(step, p, d.Name, result.Message)
		case done && result.Outcome == Refused:
			return finding{reason: ReasonRefused, text: fmt.Sprintf("%s refused to acknowledge epoch %d of %s: %s%s", p, d.Status.Epoch, key(d), result.Message, x.resumeHint())}
		case x.det.Classes[p] == Lost || x.det.Classes[p] == "":
			lost = append(lost, p)
		}
	}
	switch {
	case len(lost) > 0:
		return finding{reason: ReasonFenceUnproven, text: fmt.Sprintf("%s is not heard, and pledges of %s, which is not heard either, may keep it alive: "+
			"bring one of them back in reach; the run then goes on%s", cluster, strings.Join(lost, ", "), x.attestHint(cluster))}
	case len(missing) > 0:
		return finding{text: fmt.Sprintf("waiting until %s gives no more pledges to %s", strings.Join(missing, ", "), cluster)}
	}
	return finding{}
}

// pledgesOver is for the evidence: why no pledge keeps cluster alive.
func (x *step) pledgesOver(d *v1alpha1.Dataset, cluster string) string {
	switch names := x.withholders(d, cluster); {
	case !x.failsafe(d) && d.Status.Lingers != cluster:
		return ""
	case len(names) > 0:
		return fmt.Sprintf("; %s has acknowledged the epoch, and its last pledge is over", strings.Join(names, ", "))
	}
	return fmt.Sprintf("; no pledge outlasts the one that %s itself waits for", d.Status.Primary)
}

// withholdable is true when everybody whose acknowledgement is needed can be asked.
func (x *step) withholdable(d *v1alpha1.Dataset, cluster string) bool {
	return x.guarded(d, cluster) && !slices.ContainsFunc(x.withholders(d, cluster), func(p string) bool {
		return x.det.Classes[p] == Lost || x.det.Classes[p] == ""
	})
}
