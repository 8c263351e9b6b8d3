package failover

import "fmt"

// unsafe says which safety rule of the plan forbids that a run goes on without a
// person, or is empty. The rules bind the engine alone: a person who orders a run
// has decided.
func (x *planStep) unsafe() string {
	plan := x.planOf(x.was.Run)
	if plan == nil || x.was.Run.Spec.Requester != "" {
		return ""
	}
	rules, lost, active := plan.Spec.Safety, 0, map[string]bool{}
	for _, c := range x.Fleet.Clusters {
		switch x.det.Classes[c.Name] {
		case Lost:
			lost++
		case Healthy:
			active[c.Center] = true
		}
	}
	vantages := map[string]bool{}
	for _, m := range x.Fleet.Members {
		if m.Reported <= x.Config.VantageAge && m.Center != x.was.Run.Spec.From.Center {
			vantages[m.Center] = true
		}
	}
	all := len(x.Fleet.Clusters)
	most, bounded := rules.MaxLostFraction.Value()
	switch {
	case bounded && float64(lost) > most*float64(all):
		return fmt.Sprintf("safety rule maxLostFraction %s of plan %s: %d of %d clusters are lost", rules.MaxLostFraction, plan.Name, lost, all)
	case len(active) < int(rules.MinActiveCenters):
		return fmt.Sprintf("safety rule minActiveCenters %d of plan %s: %d centers have a healthy cluster", rules.MinActiveCenters, plan.Name, len(active))
	case len(vantages) < int(rules.MinVantageCenters):
		return fmt.Sprintf("safety rule minVantageCenters %d of plan %s: hub members of %d other centers report", rules.MinVantageCenters, plan.Name, len(vantages))
	}
	return ""
}

// restrain has every application that has not begun wait for the one round of
// approvals while a safety rule is broken. Once it has been asked, the question
// stands.
func (x *planStep) restrain() {
	why := x.unsafe()
	if why == "" || x.status().Timeline.ApprovedAt != nil {
		return
	}
	for i := range x.status().Applications {
		a := &x.status().Applications[i]
		if a.NeedsApproval == "" && !settled(a.State) && x.run(childName(x.was.Run.Name, a)) == nil {
			a.NeedsApproval = why
		}
	}
}
