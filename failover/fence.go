package failover

import (
	"cmp"
	"fmt"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// startFencing writes the decision: the next epoch with target as the coming
// primary. From that commit on no grant names the datasets to the old primary.
func (x *step) startFencing(moving []*v1alpha1.Dataset, target string) {
	x.enter(v1alpha1.RunFencing)
	for _, d := range moving {
		x.takeRole(x.now.dataset(d.Name), target)
		x.begin(stepFence, d.Status.Primary, d.Name)
	}
}

func (x *step) takeRole(d *v1alpha1.Dataset, target string) {
	x.note(NoteDecision, key(d).String(), fmt.Sprintf("epoch %d: primary moves from %s to %s", d.Status.Epoch+1, d.Status.Primary, target),
		x.sinceHeard(d.Status.Primary, 0))
	advance(d, target)
	d.Status.Phase = v1alpha1.DatasetFencing
	d.Status.Run = x.was.Run.Name
	d.Status.FenceProof = v1alpha1.FenceNone
}

// advance is the only place where an epoch grows.
func advance(d *v1alpha1.Dataset, target string) {
	d.Status.PreviousPrimary, d.Status.Primary = d.Status.Primary, target
	d.Status.Epoch++
	d.Status.ReturnedRun = ""
}

// fencing waits, for each dataset, for the proof that its old primary has
// stopped (safety.md section 6, step 2), and commits the permission to promote.
func (x *step) fencing() {
	if x.stopAutomatic() || x.turnBack() {
		return
	}
	if len(x.status().Datasets) == 0 {
		x.adopt()
	}
	if x.outdated() {
		return
	}
	ahead := true
	for i := range x.status().Datasets {
		rd := &x.status().Datasets[i]
		d := x.was.dataset(rd.Name)
		switch {
		case x.overtaken(d, rd):
			return
		case d.Status.Phase == v1alpha1.DatasetClosing:
			if x.caughtUp(d, rd) {
				x.takeRole(x.now.dataset(rd.Name), rd.Target)
			}
			ahead = false
		case d.Status.Epoch == rd.PreviousEpoch && (d.Status.Phase == v1alpha1.DatasetSteady && !x.planned() || x.inherits(d)):
			x.takeRole(x.now.dataset(rd.Name), rd.Target)
			ahead = false
		case d.Status.Phase == v1alpha1.DatasetFencing:
			ahead = false
			if !x.fence(d, rd) {
				return
			}
		}
	}
	if ahead {
		x.enter(v1alpha1.RunPromoting)
		x.promoting()
	}
}

// outdated ends or holds back a run that nobody asked for when its epoch was never
// committed, and what it was decided upon is no longer so: the leader that decided
// may have died long ago, with the quorum.
func (x *step) outdated() bool {
	run := x.was.Run
	if !x.unasked() {
		return false
	}
	var moving []*v1alpha1.Dataset
	for _, rd := range x.status().Datasets {
		d := x.was.dataset(rd.Name)
		if d == nil || d.Status.Phase != v1alpha1.DatasetSteady || d.Status.Epoch != rd.PreviousEpoch {
			return false // something was changed: it is carried through
		}
		moving = append(moving, d)
	}
	if x.gone(moving) {
		return true
	}
	for _, rd := range x.status().Datasets {
		if run.Status.Timeline.ApprovedAt == nil && !inSyncSet(x.was.dataset(rd.Name), rd.Target) {
			x.abort(ReasonNoTarget, rd.Target+" has left the sync set of "+rd.Name+": nothing was changed")
			return true
		}
	}
	return false
}

// stopAutomatic pauses a run that nobody asked for when the losses turn out to
// span more than one center before anything was promoted (invariant I4).
func (x *step) stopAutomatic() bool {
	if !x.was.Run.Status.Automatic || x.planned() || x.det.Breaker == "" {
		return false
	}
	for _, d := range x.was.Datasets {
		if d.Status.Run == x.was.Run.Name && d.Status.Phase != v1alpha1.DatasetFencing {
			return false
		}
	}
	x.pause(ReasonBreaker, x.det.Breaker+x.resumeHint())
	return true
}

// adopt rebuilds the plan of a run whose leader died between the commit of the
// epoch and that of the journal. One that had needed an approval has a journal.
func (x *step) adopt() {
	for _, d := range x.was.Datasets {
		if d.Status.Run == x.was.Run.Name {
			rd := v1alpha1.RunDataset{Name: d.Name, PreviousPrimary: d.Status.PreviousPrimary,
				Target: d.Status.Primary, PreviousEpoch: d.Status.Epoch - 1, Epoch: d.Status.Epoch}
			if c := d.Status.CatchUp; c != nil && c.Target != d.Status.Primary {
				rd.PreviousPrimary, rd.Target, rd.PreviousEpoch, rd.Epoch = d.Status.Primary, c.Target, d.Status.Epoch, d.Status.Epoch+1
			}
			x.status().Datasets = append(x.status().Datasets, rd)
		}
	}
	if x.status().Measured == nil {
		x.status().Measured = &v1alpha1.Measured{}
	}
	x.status().Automatic = x.unasked()
	if x.planned() || x.was.Run.Spec.InsteadOf != "" {
		x.adoptOthers()
	}
	x.decided()
}

// fence looks for a proof for one dataset. It is false when the run paused.
func (x *step) fence(d *v1alpha1.Dataset, rd *v1alpha1.RunDataset) bool {
	at := cmp.Or(rd.FencingRevision, revision(d))
	found := x.stopped(d, rd.PreviousPrimary, at, stepFence)
	if found == (finding{}) {
		return true // the old primary is asked; its answer comes before a write would end
	}
	// A later revision than that of the commit counts more renewals, which is
	// the safe side; it is journalled so that it does not move while time is the proof.
	rd.FencingRevision = at
	if found.proof != v1alpha1.FenceNone {
		found = x.noLonger(d, rd, found)
	}
	switch {
	case found.proof != v1alpha1.FenceNone:
		x.proven(d, rd, found.proof, found.text)
	case found.reason != "" && x.planned() && found.reason == ReasonRefused:
		x.returnTo(found.reason, found.text)
		return false
	case found.reason != "":
		x.pause(found.reason, found.text)
		return false
	case found.text != "":
		x.wait("", found.text)
	}
	return true
}

// finding is what is known about whether a former primary has stopped.
type finding struct {
	proof v1alpha1.FenceProof
	// reason is set when nothing will prove it by itself.
	reason, text string
}

// stopped looks for the proof that the copy of cluster, whose role ended with
// the commit at revision, has stopped, and fences it if it is heard.
func (x *step) stopped(d *v1alpha1.Dataset, cluster string, revision int64, name string) finding {
	over, _ := x.Fence(cluster, revision)
	guarded := x.guarded(d, cluster)
	var kept finding
	if over && guarded {
		kept = x.withheld(d, cluster, name)
		if kept.text == "" {
			kept = x.lossGrown(d, cluster, revision)
		}
		if kept.text == "" {
			return finding{proof: v1alpha1.FenceElapsed, text: "every lease that named the role is surely over and every writer was guarded" + x.pledgesOver(d, cluster)}
		}
	}
	if class := x.det.Classes[cluster]; class == Lost || class == "" {
		if sworn := x.sworn(d, cluster, revision); sworn.text != "" {
			return sworn
		}
		if kept.text != "" {
			return kept
		}
		if !guarded {
			return finding{reason: ReasonFenceUnproven, text: fmt.Sprintf("%s is not heard and dataset %s was not fully guarded there, so nothing proves that it has stopped: "+
				"bring %s back in reach; it is then fenced and the run goes on%s", cluster, key(d), cluster, x.attestHint(cluster))}
		}
		return finding{text: fmt.Sprintf("waiting for the lease of %s to be surely over", cluster)}
	}
	result, done := x.carry(name, Command{Cluster: cluster, Dataset: key(d), Verb: VerbFence, Epoch: d.Status.Epoch, Primary: d.Status.Primary})
	if done && result.Outcome == Done {
		if grown := x.lossGrown(d, cluster, revision); grown.text != "" {
			return grown
		}
		return finding{proof: v1alpha1.FenceAcknowledged, text: result.Message}
	}
	if done && result.Outcome == Refused {
		return finding{reason: ReasonRefused, text: fmt.Sprintf("%s refused the fence of %s at epoch %d: %s%s", cluster, key(d), d.Status.Epoch, result.Message, x.resumeHint())}
	}
	return finding{text: x.unfenced(d, cluster, name)}
}

// unfenced says why a copy that is heard is not proven stopped yet, as its last
// attempt did, and what else would prove it; empty while nothing has failed. It stays
// through the attempts that follow: a person reads it between two of them.
func (x *step) unfenced(d *v1alpha1.Dataset, cluster, name string) string {
	j := journal(x.status(), name, d.Name)
	if j == nil || j.State == v1alpha1.StepSucceeded || j.Message == "" {
		return ""
	}
	return fmt.Sprintf("%s is not proven stopped, and asked again: %s%s", cluster, j.Message, x.attestHint(cluster))
}

// proven commits, in one write, the proof and the permission that rests on it.
func (x *step) proven(d *v1alpha1.Dataset, rd *v1alpha1.RunDataset, proof v1alpha1.FenceProof, text string) {
	since := x.sinceHeard(rd.PreviousPrimary, rd.FencingRevision)
	next := x.now.dataset(d.Name)
	next.Status.Phase = v1alpha1.DatasetPromoting
	if proof == v1alpha1.FenceElapsed && x.failsafe(d) && len(x.withholders(d, rd.PreviousPrimary)) == 0 {
		next.Status.Lingers = rd.PreviousPrimary
	}
	next.Status.FenceProof, next.Status.Failsafe, next.Status.FormerMembers = proof, false, nil
	if next.Status.UnsettledAfter == 0 {
		next.Status.UnsettledAfter = revision(d)
	}
	rd.FenceProof = proof
	st := x.status()
	st.Timeline.FencedAt = x.mark()
	st.Measured.FenceSeconds = seconds(since - parseSeconds(st.Measured.DetectSeconds))
	x.finish(stepFence, rd.PreviousPrimary, d.Name, string(proof)+": "+text)
	x.begin(stepPromote, rd.Target, d.Name)
	x.milestone(MarkFenced, NoteDecision, key(d).String(), fmt.Sprintf("%s is proven stopped at epoch %d by %s: %s", rd.PreviousPrimary, rd.Epoch, proof, text), since)
}

// guarded is true when the last thing known of a copy is that every process
// that can write to it is guarded. The committed word must say so; the leader's
// own memory must not say otherwise, unless it is from an earlier term and thus
// older than what another leader has committed since.
func (s *Snapshot) guarded(d *v1alpha1.Dataset, cluster string) bool {
	ms := memberStatus(d, cluster)
	if ms == nil || ms.Guarded != v1alpha1.Guarded {
		return false
	}
	o, ok := s.Observed[Copy{key(d), cluster}]
	recent := ok && o.Age <= s.sinceHeard(cluster, 0)+s.Config.Fresh
	return !recent || o.Guarded == v1alpha1.Guarded
}

func (x *step) resumeHint() string {
	return fmt.Sprintf(". Go on with: tripodctl approve %s %s", x.was.Run.Name, stepResume)
}

// paused goes on when what it waited for has come, or a person says so.
func (x *step) paused() {
	st := x.status()
	since := x.was.Run.CreationTimestamp.Time
	if st.Timeline.PausedAt != nil {
		since = st.Timeline.PausedAt.Time
	}
	var loss *v1alpha1.LossEstimate
	if st.Reason == ReasonLossGrown {
		loss = st.Loss
	}
	resume := CountApprovals(x.Snapshot, x.policyOf(x.was.Run), x.was.Run.Name, stepResume, x.was.Run.Spec.Requester, since, loss)
	switch st.Reason {
	case ReasonFenceUnproven:
		for _, rd := range st.Datasets {
			d := x.was.dataset(rd.Name)
			if d == nil {
				continue
			}
			why := x.provable(d, rd.PreviousPrimary)
			if lingers(d, &rd) && why != "" {
				why = x.provable(d, d.Status.Lingers)
			}
			if why != "" {
				x.resume(why)
				return
			}
		}
	case ReasonTargetLost:
		for _, rd := range st.Datasets {
			if x.det.Classes[rd.Target] != Healthy {
				return
			}
		}
		x.resume("the target is heard again")
	case ReasonBreaker:
		if resume.Enough {
			st.Automatic = false // a person has decided
			x.resume("approved by " + fmt.Sprint(resume.By))
		}
	default:
		if resume.Enough {
			x.resume("approved by " + fmt.Sprint(resume.By))
		}
	}
}

// provable says why the stop of a former primary may be proven now, where nothing
// proved it before, or is empty.
func (x *step) provable(d *v1alpha1.Dataset, cluster string) string {
	if c := x.det.Classes[cluster]; c == Healthy || c == Unobservable {
		return cluster + " is heard again"
	}
	if word := x.attested(cluster); word.Enough {
		return fmt.Sprintf("%v attest that %s is without power", word.By, cluster)
	}
	if x.withholdable(d, cluster) {
		return "everybody whose pledges may keep " + cluster + " alive is heard again"
	}
	return ""
}

func (x *step) resume(why string) {
	phase := x.status().ResumePhase
	if phase == "" {
		phase = v1alpha1.RunFencing
	}
	x.enter(phase)
	x.note(NoteDecision, x.was.Run.Name, "resumed: "+why, 0)
	x.hooksAgain()
	for i := range x.status().Steps {
		if j := &x.status().Steps[i]; j.State == v1alpha1.StepRunning {
			j.Attempt++ // what was answered before the pause no longer counts
		}
	}
}
