package failover

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// promoting commands the promotion of each dataset whose permission to promote
// is committed, and routes when all of them have been proven by a write.
func (x *step) promoting() {
	if x.turnBack() {
		return
	}
	all := true
	for i := range x.status().Datasets {
		rd := &x.status().Datasets[i]
		d := x.was.dataset(rd.Name)
		switch {
		case x.overtaken(d, rd):
			return
		case d.Status.Phase == v1alpha1.DatasetSteady && d.Status.Epoch == rd.Epoch:
			x.makeUp(d, rd)
			rd.Promoted = true
			x.finish(stepPromote, rd.Target, rd.Name, "promoted")
		case d.Status.Phase == v1alpha1.DatasetPromoting:
			if !x.promote(d, rd) {
				return
			}
		}
		all = all && rd.Promoted
	}
	if all && len(x.status().Datasets) > 0 {
		x.promoted()
	}
}

// makeUp journals what the dataset says was done before a promotion: the leader
// that did it may have died before it could.
func (x *step) makeUp(d *v1alpha1.Dataset, rd *v1alpha1.RunDataset) {
	rd.FenceProof = d.Status.FenceProof
	x.finish(stepFence, rd.PreviousPrimary, d.Name, string(rd.FenceProof))
	if !x.planned() {
		return
	}
	closed, caught := "closed in order", "nothing is missing"
	if c := d.Status.CatchUp; c != nil {
		closed, caught = closed+"; its log ends at "+c.FinalPosition, "holds "+c.TargetPosition+": "+caught
	}
	x.finish(stepClose, rd.PreviousPrimary, d.Name, closed)
	x.finish(stepCatchUp, rd.Target, d.Name, caught)
}

// promote carries out one promotion. It is false when the run paused.
func (x *step) promote(d *v1alpha1.Dataset, rd *v1alpha1.RunDataset) bool {
	x.makeUp(d, rd)
	catchUp := d.Status.CatchUp
	if catchUp != nil && !catchUp.Proven() {
		x.returnTo(ReasonNotClosed, fmt.Sprintf("%s is not proven to hold all of dataset %s: %+v", rd.Target, key(d), *catchUp))
		return false
	}
	if class := x.det.Classes[rd.Target]; class == Lost && catchUp == nil {
		x.pause(ReasonTargetLost, fmt.Sprintf("%s was lost before it was promoted: the run goes on when it is back%s", rd.Target, x.insteadHint()))
		return false
	}
	if rd.Promoted {
		return true // it waits for the others of the run
	}
	c := Command{Cluster: rd.Target, Dataset: key(d), Verb: VerbPromote, Epoch: d.Status.Epoch, Primary: rd.Target, SyncSet: []string{rd.Target}}
	if catchUp != nil {
		// Until it is opened it acknowledges nothing that the source lacks: so
		// the run can still return without a loss.
		c.SyncSet = append(c.SyncSet, rd.PreviousPrimary)
	}
	result, done := x.carry(stepPromote, c)
	switch {
	case done && result.Outcome == Refused && catchUp != nil:
		x.returnTo(ReasonRefused, fmt.Sprintf("%s refused to be promoted for %s at epoch %d: %s", rd.Target, key(d), rd.Epoch, result.Message))
		return false
	case done && result.Outcome == Refused:
		x.pause(ReasonRefused, fmt.Sprintf("%s refused to be promoted for %s at epoch %d: %s%s%s", rd.Target, key(d), rd.Epoch, result.Message, x.resumeHint(), x.insteadHint()))
		return false
	case done && result.Outcome == Done:
		if catchUp == nil {
			settle(x.now.dataset(d.Name), x.mark())
		}
		rd.Promoted = true
		text := fmt.Sprintf("proven by a write at %s, timeline %d, in %v", result.Position, result.Timeline, result.Elapsed)
		x.finish(stepPromote, rd.Target, d.Name, text)
		x.milestone(MarkPromoted, NoteResult, rd.Target, text, x.sinceHeard(rd.PreviousPrimary, rd.FencingRevision))
	case catchUp == nil:
		x.unpromoted(d, rd)
	}
	return true
}

// unpromoted tells people why a promotion that is asked again was none: what its last
// attempt found. Nothing while none has failed.
func (x *step) unpromoted(d *v1alpha1.Dataset, rd *v1alpha1.RunDataset) {
	if j := journal(x.status(), stepPromote, d.Name); j != nil && j.State != v1alpha1.StepSucceeded && j.Message != "" {
		x.wait("", fmt.Sprintf("%s is not the primary of %s yet, and asked again: %s%s", rd.Target, key(d), j.Message, x.insteadHint()))
	}
}

// promoted writes the routes and the account of the promotion.
func (x *step) promoted() {
	st := x.status()
	rd := st.Datasets[0]
	since := x.sinceHeard(rd.PreviousPrimary, rd.FencingRevision)
	x.settled() // a switchover opens all of them at once
	x.enter(v1alpha1.RunRouting)
	st.Timeline.PromotedAt = x.mark()
	st.Measured.PromoteSeconds = seconds(since - total(st.Measured.DetectSeconds, st.Measured.FenceSeconds))
	// Where no name leads to the application there is no route to wait for.
	if x.route() && len(x.was.Services) == 0 && !x.planned() && x.dueHook(v1alpha1.RunVerifying) == nil {
		x.routed("nothing leads here by a name", since)
	}
}

// route writes the names' answers; a name already routed is left as it is.
func (x *step) route() bool {
	x.begin(stepRoute, x.status().Datasets[0].Target, "")
	settled := true
	for i, g := range x.was.Services {
		if Route(x.Snapshot, x.det, x.now.App, x.now.Datasets, x.now.Services[i]) {
			settled = false
			x.note(NoteDecision, g.Name, fmt.Sprintf("%s now leads to %s", g.Spec.Host, strings.Join(x.now.Services[i].Status.Answers, ", ")), 0)
		}
	}
	return settled
}

// settled is true when the end of every role change is committed. The journal
// may be ahead of a dataset when one of two parallel writes was lost.
func (x *step) settled() bool {
	all := true
	for _, rd := range x.status().Datasets {
		d := x.now.dataset(rd.Name)
		if d != nil && d.Status.Epoch == rd.Epoch && d.Status.Phase == v1alpha1.DatasetPromoting {
			settle(d, x.mark())
			all = false
		}
	}
	return all
}

// routing ends when every route is committed.
func (x *step) routing() {
	if x.overruled() || x.targetGone() {
		return
	}
	x.tooLate()
	if !x.settled() {
		return
	}
	routed, opened := x.route(), x.open()
	if !routed || !opened {
		return
	}
	rd := x.status().Datasets[0]
	x.routed("routes are committed", x.sinceHeard(rd.PreviousPrimary, rd.FencingRevision))
}

// routed begins the verification, and is when the service was restored.
func (x *step) routed(how string, since time.Duration) {
	st := x.status()
	for i := range st.Datasets {
		st.Datasets[i].Routed = true
		x.begin(stepVerify, st.Datasets[i].Target, st.Datasets[i].Name)
	}
	x.finish(stepRoute, st.Datasets[0].Target, "", how)
	x.enter(v1alpha1.RunVerifying)
	st.Timeline.RoutedAt = x.mark()
	st.Measured.RouteSeconds = seconds(since - total(st.Measured.DetectSeconds, st.Measured.FenceSeconds, st.Measured.PromoteSeconds))
	st.Measured.RTOSeconds = seconds(since)
	st.Measured.RPO = rpo(st)
	x.milestone(MarkRouted, NoteResult, x.was.Run.Name, how+"; RPO "+st.Measured.RPO, since)
}

// verifying proves by a write through the driver that the new primary serves.
func (x *step) verifying() {
	if x.targetGone() {
		return
	}
	x.tooLate()
	if !x.settled() { // written together with the journal that is here already
		return
	}
	all := true
	for _, rd := range x.status().Datasets {
		d := x.was.dataset(rd.Name)
		if d == nil || d.Status.Epoch > rd.Epoch {
			continue // overtaken: it is another run's to verify
		}
		j := journal(x.status(), stepVerify, rd.Name)
		if j != nil && j.State == v1alpha1.StepSucceeded {
			continue
		}
		result, done := x.carry(stepVerify, Command{Cluster: rd.Target, Dataset: key(d), Verb: VerbProbe, Epoch: rd.Epoch, Primary: rd.Target, SyncSet: d.Status.SyncSet})
		switch {
		case done && result.Outcome == Done:
			x.finish(stepVerify, rd.Target, rd.Name, result.Message)
			x.note(NoteResult, rd.Target, "a probe write on "+key(d).String()+" succeeded", 0)
		case done && result.Outcome == Refused:
			x.pause(ReasonUnverified, fmt.Sprintf("%s refused the probe of %s: %s%s", rd.Target, key(d), result.Message, x.resumeHint()))
			return
		default:
			all = false
		}
	}
	if all {
		x.enter(v1alpha1.RunCompleted)
		x.status().Timeline.FinishedAt = x.mark()
		x.tooLate()
	}
}

func parseSeconds(s string) time.Duration {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return 0
	}
	return time.Duration(f * float64(time.Second))
}

func total(parts ...string) time.Duration {
	sum := time.Duration(0)
	for _, p := range parts {
		sum += parseSeconds(p)
	}
	return sum
}
