package failover

import (
	"fmt"
	"strings"
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// A drill promotes and probes a copy of a standby's data apart from production:
//
//	Preflight → Drilling (DRILL_START) → Cleaning (DRILL_STOP) → Completed | Aborted
//
// It changes no dataset, no route and no role, so it is no move: one application
// may have a drill and a move at once, and then the drill gives way. Whatever was
// started is stopped, whatever became of it.

// drillBound is how long one copy may take to be made, promoted and probed.
const drillBound = 15 * time.Minute

const (
	stepDrill = "drill"
	stepClean = "clean"
)

// Reasons of a drill's end.
const (
	ReasonGivesWay    = "GivesWay"
	ReasonDrillFailed = "DrillFailed"
)

func (x *step) drill() {
	switch x.was.Run.Status.Phase {
	case v1alpha1.RunPending, v1alpha1.RunPreflight:
		x.drillPreflight()
	case v1alpha1.RunDrilling:
		x.drilling()
	case v1alpha1.RunCleaning:
		x.cleaning()
	}
}

// drillPreflight chooses whose copy is drilled. Nothing has been started yet.
func (x *step) drillPreflight() {
	if x.withdrawn() {
		return
	}
	if why := x.givesWay(); why != "" {
		x.abort(ReasonGivesWay, why+": nothing was started")
		return
	}
	target, why := x.rehearsed()
	if why != "" {
		x.abort(ReasonNoTarget, why)
		return
	}
	if x.parentPaused() {
		return
	}
	x.enter(v1alpha1.RunDrilling)
	for _, d := range x.was.Datasets {
		x.status().Datasets = append(x.status().Datasets, v1alpha1.RunDataset{Name: d.Name, PreviousPrimary: d.Status.Primary,
			Target: target, PreviousEpoch: d.Status.Epoch, Epoch: d.Status.Epoch})
		x.begin(stepDrill, target, d.Name)
	}
	x.note(NoteDecision, target, "a copy of its data is promoted and probed apart from production", 0)
}

// rehearsed is the standby that is drilled: the ordered one, or the first whose
// copies run.
func (x *step) rehearsed() (string, string) {
	if len(x.was.Datasets) == 0 {
		return "", "the application has no dataset: there is no data to drill with"
	}
	ordered, why := x.was.Run.Spec.To.Cluster, ""
	for _, m := range x.was.Datasets[0].Spec.Members {
		if ordered != "" && m.Cluster != ordered {
			continue
		}
		reason := x.undrillable(m.Cluster)
		if reason == "" {
			return m.Cluster, ""
		}
		why += fmt.Sprintf("%s: %s; ", m.Cluster, reason)
	}
	if why == "" {
		why = ordered + ": holds no copy; "
	}
	return "", "no standby can be drilled: " + why + "start the drill again when one streams"
}

// undrillable says why the copies of a cluster cannot be drilled, or is empty.
func (x *step) undrillable(cluster string) string {
	if class := x.det.Classes[cluster]; class != Healthy {
		return "is " + orUnknown(class)
	}
	for _, d := range x.was.Datasets {
		o, ok := x.fresh(d, cluster)
		switch {
		case member(d, cluster) == nil:
			return "holds no copy of dataset " + d.Name
		case d.Status.Primary == cluster:
			return "is the primary of dataset " + d.Name + ", which a drill leaves alone"
		case !ok || o.State != v1alpha1.StateStreaming:
			return "its copy of dataset " + d.Name + " does not stream"
		}
	}
	return ""
}

// givesWay says what is more important than a drill, or is empty.
func (x *step) givesWay() string {
	if run := x.activeRun(x.was.App); run != nil {
		return "run " + run.Name + " moves the application"
	}
	for _, d := range x.was.Datasets {
		if class := x.det.Classes[d.Status.Primary]; class == Lost || class == Silent {
			return fmt.Sprintf("%s, the primary of dataset %s, is %s", d.Status.Primary, d.Name, class)
		}
		if d.Status.Phase != v1alpha1.DatasetSteady {
			return fmt.Sprintf("dataset %s is %s", d.Name, d.Status.Phase)
		}
	}
	return ""
}

// drilling waits for the answer of every copy. One try each: a copy that cannot be
// drilled is the result. Who is lost is not waited for, and whose agent died is
// Unreachable as soon as its session, or its part as the active replica, has ended.
func (x *step) drilling() {
	if by := x.abortedBy(); by != "" {
		x.clean(ReasonAborted, "aborted by "+by)
		return
	}
	if why := x.givesWay(); why != "" {
		x.clean(ReasonGivesWay, why)
		return
	}
	all := true
	for i := range x.status().Datasets {
		rd := &x.status().Datasets[i]
		d := x.was.dataset(rd.Name)
		if d == nil {
			x.clean(ReasonOvertaken, "dataset "+rd.Name+" is gone")
			return
		}
		if j := journal(&x.was.Run.Status, stepDrill, rd.Name); j != nil && j.State == v1alpha1.StepSucceeded {
			continue
		}
		all = false
		if class := x.det.Classes[rd.Target]; class == Lost || class == "" {
			x.clean(ReasonDrillFailed, fmt.Sprintf("%s, where the copy of dataset %s is drilled, is %s", rd.Target, rd.Name, orUnknown(class)))
			return
		}
		result, done := x.carry(stepDrill, Command{Cluster: rd.Target, Dataset: key(d), Verb: VerbDrillStart, Epoch: rd.Epoch, Primary: d.Status.Primary, Bound: drillBound})
		switch {
		case !done:
		case result.Outcome == Done:
			text := fmt.Sprintf("%s; in %v", result.Message, result.Elapsed.Round(time.Millisecond))
			x.finish(stepDrill, rd.Target, rd.Name, text)
			x.note(NoteResult, rd.Target, text, 0)
		default:
			x.clean(ReasonDrillFailed, fmt.Sprintf("the copy of dataset %s at %s could not be drilled: %s %s", rd.Name, rd.Target, result.Outcome, result.Message))
			return
		}
	}
	if all {
		x.clean("", "")
	}
}

// clean begins the end; a reason says why the drill counts for nothing.
func (x *step) clean(reason, message string) {
	x.enter(v1alpha1.RunCleaning)
	x.wait(reason, message)
	if reason != "" {
		x.note(NoteDecision, x.was.Run.Name, "ends: "+reason+": "+message, 0)
	}
	x.commands = nil
	for _, rd := range x.status().Datasets {
		x.begin(stepClean, rd.Target, rd.Name)
	}
}

// cleaning ends the run when nothing is left. A cluster that cannot be asked is
// asked again when it is back.
func (x *step) cleaning() {
	all := true
	for i := range x.status().Datasets {
		rd := &x.status().Datasets[i]
		if j := journal(&x.was.Run.Status, stepClean, rd.Name); j != nil && j.State == v1alpha1.StepSucceeded {
			continue
		}
		d := x.was.dataset(rd.Name)
		if d == nil {
			continue // nobody can be asked for a dataset that is gone: the agent removes what is left of it
		}
		all = false
		result, done := x.carry(stepClean, Command{Cluster: rd.Target, Dataset: key(d), Verb: VerbDrillStop, Epoch: rd.Epoch, Primary: d.Status.Primary})
		if done && (result.Outcome == Done || result.Outcome == Refused) {
			x.finish(stepClean, rd.Target, rd.Name, string(result.Outcome)+": "+result.Message)
			x.note(NoteResult, rd.Target, "cleaned: "+result.Message, 0)
		}
	}
	if !all {
		return
	}
	if reason, message := x.status().Reason, x.status().Message; reason != "" {
		x.abort(reason, message+"; nothing of the drill is left")
		return
	}
	x.enter(v1alpha1.RunCompleted)
	x.status().Timeline.FinishedAt = x.mark()
}

// activeDrill is the oldest unfinished drill of an application.
func (s *Snapshot) activeDrill(app *v1alpha1.Application) *v1alpha1.RecoveryRun {
	return s.oldest(app, func(r *v1alpha1.RecoveryRun) bool { return r.Spec.Action == v1alpha1.ActionDrill })
}

// lastDrill sums up the newest drill of an application.
func (s *Snapshot) lastDrill(app *v1alpha1.Application) *v1alpha1.LastDrill {
	var last *v1alpha1.RecoveryRun
	for _, r := range s.indexed().runsOf[key(app)] {
		if r.Spec.Action == v1alpha1.ActionDrill {
			last = later(last, r)
		}
	}
	if last == nil {
		return app.Status.LastDrill
	}
	st := last.Status
	out := &v1alpha1.LastDrill{Name: last.Name, Phase: string(st.Phase), Reason: st.Reason, Result: st.Message, FinishedAt: st.Timeline.FinishedAt}
	var results []string
	for _, rd := range st.Datasets {
		out.Cluster = rd.Target
		if j := journal(&st, stepDrill, rd.Name); j != nil && j.State == v1alpha1.StepSucceeded {
			results = append(results, rd.Name+": "+j.Message)
		}
	}
	if st.Message == "" {
		out.Result = strings.Join(results, "; ")
	}
	return out
}
