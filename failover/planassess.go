package failover

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// mostNamed bounds the applications that a plan's status names.
const mostNamed = 20

// AssessPlan writes what a plan's status should be: whether a run of it would succeed
// now, and what would stop it first. Like Assess it decides nothing.
func AssessPlan(s *Snapshot, det Detection, plan *v1alpha1.RecoveryPlan) {
	st := &plan.Status
	st.ObservedGeneration = plan.Generation
	st.Preflight = planChecks(s, det, plan)
	ready, reason, message := planReadiness(s, plan)
	status := metav1.ConditionFalse
	if ready {
		status = metav1.ConditionTrue
	}
	meta.SetStatusCondition(&st.Conditions, metav1.Condition{Type: v1alpha1.ConditionReady, Status: status, Reason: reason, Message: message,
		ObservedGeneration: plan.Generation, LastTransitionTime: transition(st.Conditions, v1alpha1.ConditionReady, status, s)})
}

// planReadiness names the first thing that would stop a run, in the order in which
// a run would meet it.
func planReadiness(s *Snapshot, plan *v1alpha1.RecoveryPlan) (bool, string, string) {
	for _, run := range s.indexed().planRuns {
		if run.Spec.Plan == plan.Name && !Finished(run.Status.Phase) {
			return false, "RunInProgress", fmt.Sprintf("run %s of the plan is under way", run.Name)
		}
	}
	for _, c := range plan.Status.Preflight {
		if c.Result == v1alpha1.PreflightFailed {
			return false, c.Check, strings.TrimPrefix(c.Target+": "+c.Message, ": ")
		}
	}
	return true, "PlanReady", "a run of the plan would succeed now"
}

func planChecks(s *Snapshot, det Detection, plan *v1alpha1.RecoveryPlan) []v1alpha1.PreflightCheck {
	selected := check("Applications", "")
	book, no := read(plan)
	if no != nil {
		fail(&selected, no.message)
		return []v1alpha1.PreflightCheck{selected}
	}
	var apps []*v1alpha1.Application
	for _, app := range s.Applications {
		if book.applications.selects(app) {
			apps = append(apps, app)
		}
	}
	if len(apps) == 0 {
		fail(&selected, "the plan selects no application: look at spec.applications")
	}
	order := check("Order", "")
	if _, no := book.order(s.graph(), apps); no != nil {
		fail(&order, no.message)
	}
	checks := []v1alpha1.PreflightCheck{selected, order, quorum(s, plan), s.satisfiable(plan)}
	for i := range plan.Spec.Hooks {
		checks = append(checks, s.hookCheck(plan, book, &plan.Spec.Hooks[i]))
	}
	checks = append(checks, s.room(det, apps)...)
	return append(checks, s.members(plan, apps)...)
}

// members are the applications that are not ready themselves, and those that an
// automatic plan leaves out.
func (s *Snapshot) members(plan *v1alpha1.RecoveryPlan, apps []*v1alpha1.Application) []v1alpha1.PreflightCheck {
	var checks []v1alpha1.PreflightCheck
	more := 0
	for _, app := range apps {
		c := check("Application", key(app).String())
		ready := meta.FindStatusCondition(app.Status.Conditions, v1alpha1.ConditionReady)
		policy := app.Spec.Failover
		switch {
		case ready == nil:
			fail(&c, "it has not been assessed yet")
		case ready.Status != metav1.ConditionTrue:
			fail(&c, ready.Reason+": "+ready.Message)
		case plan.Spec.Use == v1alpha1.PlanAutomatic && policy.WithinRegion == v1alpha1.FailoverManual && policy.AcrossRegions == v1alpha1.FailoverManual:
			fail(&c, "its policy is Manual, and the plan is used by itself: such a run leaves it out")
		default:
			continue
		}
		if len(checks) == mostNamed {
			more++
			continue
		}
		checks = append(checks, c)
	}
	if more > 0 {
		c := check("Application", "")
		fail(&c, fmt.Sprintf("%d more are not ready", more))
		checks = append(checks, c)
	}
	return checks
}

// satisfiable asks of an automatic plan whether its safety rules let it be used when
// any one center is lost.
func (s *Snapshot) satisfiable(plan *v1alpha1.RecoveryPlan) v1alpha1.PreflightCheck {
	c, rules := check("Safety", ""), plan.Spec.Safety
	if plan.Spec.Use != v1alpha1.PlanAutomatic {
		return c
	}
	clusters, members := map[string]int{}, map[string]bool{}
	for _, cl := range s.Fleet.Clusters {
		clusters[cl.Center]++
	}
	for _, m := range s.Fleet.Members {
		members[m.Center] = true
	}
	most, bounded := rules.MaxLostFraction.Value()
	for _, center := range sortedKeys(clusters) {
		vantages := len(members)
		if members[center] {
			vantages--
		}
		var why string
		switch {
		case bounded && float64(clusters[center]) > most*float64(len(s.Fleet.Clusters)):
			why = fmt.Sprintf("maxLostFraction %s: %d of %d clusters are in %s", rules.MaxLostFraction, clusters[center], len(s.Fleet.Clusters), center)
		case len(clusters)-1 < int(rules.MinActiveCenters):
			why = fmt.Sprintf("minActiveCenters %d: without %s there are %d centers with a cluster", rules.MinActiveCenters, center, len(clusters)-1)
		case vantages < int(rules.MinVantageCenters):
			why = fmt.Sprintf("minVantageCenters %d: without %s there are hub members in %d centers", rules.MinVantageCenters, center, vantages)
		}
		if why != "" {
			fail(&c, why+"; so the loss of that center is always a person's to answer, and the plan is not used by itself")
		}
	}
	return c
}

// room asks whether everything that leaves one center together finds room where it
// goes. Each application alone is asked by its own preflight.
func (s *Snapshot) room(det Detection, apps []*v1alpha1.Application) []v1alpha1.PreflightCheck {
	type way struct{ center, target string }
	need := map[way]v1alpha1.Resources{}
	var ways []way
	for _, app := range apps {
		datasets := s.datasetsOf(app)
		if len(datasets) == 0 || datasets[0].Status.Primary == "" {
			continue
		}
		active := datasets[0].Status.Primary
		from, known := s.Fleet.Cluster(active)
		target, why := choose(s, det, app, datasets, v1alpha1.Place{Center: from.Center}, v1alpha1.Place{})
		if !known || why != "" {
			continue
		}
		w := way{from.Center, target.Cluster}
		sum, seen := need[w]
		for _, p := range s.placementsOf(app) {
			if p.Status.Needs == nil || p.Spec.WhenLost != v1alpha1.WhenLostMove {
				continue
			}
			for _, share := range p.Status.Needs.Shares {
				if share.Cluster == active {
					sum.CPU.Add(share.Requests.CPU)
					sum.Memory.Add(share.Requests.Memory)
				}
			}
		}
		if need[w] = sum; !seen {
			ways = append(ways, w)
		}
	}
	var checks []v1alpha1.PreflightCheck
	for _, w := range ways {
		k := s.Kubernetes[w.target]
		if k == nil {
			continue
		}
		c, sum := check("Capacity", w.target), need[w]
		free := v1alpha1.Resources{CPU: k.Allocatable.CPU.DeepCopy(), Memory: k.Allocatable.Memory.DeepCopy()}
		for _, used := range []v1alpha1.Resources{k.Requested, sum} {
			free.CPU.Sub(used.CPU)
			free.Memory.Sub(used.Memory)
		}
		if (sum.CPU.Sign() > 0 || sum.Memory.Sign() > 0) && (free.CPU.Sign() < 0 || free.Memory.Sign() < 0) {
			fail(&c, fmt.Sprintf("with all that the plan brings there from center %s it would lack %s: add nodes or free some", w.center, shortage(free)))
		}
		checks = append(checks, c)
	}
	return checks
}

// HookRef names a hook of a plan as it was written.
type HookRef struct {
	Plan       string
	Generation int64
	Hook       string
}

// hookCheck asks whether a hook could run. One whose failure does not stop the run is
// a warning.
func (s *Snapshot) hookCheck(plan *v1alpha1.RecoveryPlan, book runbook, h *v1alpha1.PlanHook) v1alpha1.PreflightCheck {
	c := check("Hook", h.Name)
	why := hookFault(book, h)
	if why == "" {
		why = s.HookFaults[HookRef{plan.Name, plan.Generation, h.Name}]
	}
	if why == "" {
		if h.Job != nil && h.Job.In == v1alpha1.HookTarget && slices.Contains([]v1alpha1.HookPoint{"BeforeRun", "BeforeClose", "BeforeFence"}, h.At) {
			c.Result, c.Message = v1alpha1.PreflightWarning, fmt.Sprintf("at %s the target is known only if the order names it, or somebody approved: have the hook run later, or order with --to", h.At)
		}
		return c
	}
	fail(&c, why)
	if h.OnFailure == v1alpha1.HookContinue {
		c.Result = v1alpha1.PreflightWarning
	}
	return c
}

// hookFault is what is wrong with a hook by itself, or empty.
func hookFault(book runbook, h *v1alpha1.PlanHook) string {
	if h.Applications != nil {
		if _, err := newMatcher(*h.Applications); err != nil {
			return fmt.Sprintf("it concerns nobody: applications: %v", err)
		}
	}
	wave := h.At == beforeWave || h.At == afterWave
	whole := wave || h.At == beforePlan || h.At == afterPlan
	known := slices.ContainsFunc(book.waves, func(w v1alpha1.RunWave) bool { return w.Name == h.Wave })
	switch {
	case h.Wave != "" && !wave:
		return fmt.Sprintf("it names wave %s and runs at %s: a wave's hook is at BeforeWave or AfterWave", h.Wave, h.At)
	case h.Wave != "" && !known:
		return fmt.Sprintf("it would never run: the plan has no wave %s", h.Wave)
	case whole && h.Job != nil && h.Job.In != v1alpha1.HookNamed:
		return fmt.Sprintf("at %s there is no %s cluster: a plan's run is of many; name a cluster with in: Named", h.At, h.Job.In)
	case whole && h.Job != nil && h.Job.Namespace == "":
		return fmt.Sprintf("at %s there is no application whose namespace its Job could take: give job.namespace", h.At)
	}
	return ""
}

// JobPlace is where a hook's Job may have to run.
type JobPlace struct{ Cluster, Namespace string }

// mostPlaces bounds the places of one hook that are looked at.
const mostPlaces = 64

// JobPlaces of a hook of a plan: those of every application that it concerns, in
// every cluster that holds a copy of its data. The first of them, if they are many.
func JobPlaces(s *Snapshot, plan *v1alpha1.RecoveryPlan, h *v1alpha1.PlanHook) []JobPlace {
	book, no := read(plan)
	if no != nil || h.Job == nil || hookFault(book, h) != "" {
		return nil
	}
	found := map[JobPlace]bool{}
	concerned := matcher{}
	if h.Applications != nil {
		concerned, _ = newMatcher(*h.Applications) // hookFault has read it
	}
	for _, app := range s.Applications {
		if !book.applications.selects(app) || !concerned.selects(app) {
			continue
		}
		p := JobPlace{Cluster: h.Job.Cluster, Namespace: h.Job.Namespace}
		if p.Namespace == "" {
			p.Namespace = app.Namespace
		}
		if p.Cluster != "" {
			found[p] = true
			continue
		}
		for _, d := range s.datasetsOf(app) {
			for _, m := range d.Spec.Members {
				found[JobPlace{m.Cluster, p.Namespace}] = true
			}
		}
	}
	places := make([]JobPlace, 0, len(found))
	for p := range found {
		places = append(places, p)
	}
	slices.SortFunc(places, func(a, b JobPlace) int {
		return strings.Compare(a.Cluster+"/"+a.Namespace, b.Cluster+"/"+b.Namespace)
	})
	return places[:min(len(places), mostPlaces)]
}
