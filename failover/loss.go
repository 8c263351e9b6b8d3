package failover

import (
	"fmt"
	"math"
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// What a promotion may lose is what the old primary acknowledged after the newest
// instant up to which the target surely holds everything (Observed.Held), and before
// the old primary surely stopped. Both are counted on the leader's monotonic clock.
// While the old primary may go on writing nobody knows the second, so the question
// shows what is lost so far and a time for people and proofs on top; when the proof is
// there, what was lost by then must not be more than was accepted (lossGrown). So the
// bound is kept, whatever the old primary lived on.

const unknownLoss = v1alpha1.UnknownLossSeconds

// EstimateLoss bounds what promoting target would lose of d, for people to accept.
func EstimateLoss(s *Snapshot, d *v1alpha1.Dataset, target string) v1alpha1.LossEstimate {
	loss, _ := s.estimateLoss(d, target)
	return loss
}

// estimateLoss also returns what would be lost by now, in seconds: a question that
// showed as much is still a true one.
func (s *Snapshot) estimateLoss(d *v1alpha1.Dataset, target string) (v1alpha1.LossEstimate, int64) {
	if unsettled(d) {
		return s.lossUnsettled(d, target)
	}
	over, silent := s.Fence(d.Status.Primary, 0)
	goesOn := s.outlives(d, d.Status.Primary)
	if silent <= s.Config.Suspect {
		goesOn = ""
	}
	o, seen := s.Observed[Copy{key(d), target}]
	switch {
	case seen && o.Held != nil:
		return s.lossByTrail(d, target, *o.Held, silent, goesOn)
	case over && goesOn == "":
		return s.lossByLag(d, target, goesOn), 0 // it has stopped; what the target says of its lag grows all the same
	}
	loss := s.lossByLag(d, target, goesOn)
	return loss, loss.Seconds
}

// lossByTrail is for a target that surely held everything some time ago.
func (s *Snapshot) lossByTrail(d *v1alpha1.Dataset, target string, held, silent time.Duration, goesOn string) (v1alpha1.LossEstimate, int64) {
	loss := v1alpha1.LossEstimate{Possible: true, Bytes: s.missing(d, target)}
	if goesOn == "" {
		soFar := max(0, held-silent) + s.Config.transit()
		loss.Seconds = ceil(soFar + s.Config.leaseBound())
		loss.Message = fmt.Sprintf("dataset %s: %s may lack what was acknowledged in %d s, and %d bytes when both were last observed", key(d), target, loss.Seconds, loss.Bytes)
		return loss, ceil(soFar)
	}
	soFar := ceil(held + s.Config.transit())
	loss.Seconds = ceil(held + s.Config.transit() + s.Config.leaseBound() + s.Config.Answer)
	loss.Message = fmt.Sprintf("dataset %s: %s may lack what was acknowledged in %d s so far, and what is until %s is proven stopped, because %s; the bound is kept if that takes no longer than %v, else the run asks again",
		key(d), target, soFar, d.Status.Primary, goesOn, s.Config.Answer)
	return loss, soFar
}

func ceil(d time.Duration) int64 { return int64(math.Ceil(d.Seconds())) + 1 }

// outlives says why a primary that is silent may go on writing after its lease, or is
// empty.
func (s *Snapshot) outlives(d *v1alpha1.Dataset, primary string) string {
	switch {
	case !s.guarded(d, primary):
		return fmt.Sprintf("not every process that can write to %s at %s is guarded, so it may go on writing", key(d), primary)
	case s.failsafe(d):
		return fmt.Sprintf("%s is not heard, and may go on writing to %s for as long as others pledge to it", primary, key(d))
	}
	return ""
}

// missing is how many bytes of the primary's log the target lacked when both were last
// observed.
func (s *Snapshot) missing(d *v1alpha1.Dataset, target string) int64 {
	t, seen := s.Observed[Copy{key(d), target}]
	if p, ok := s.Observed[Copy{key(d), d.Status.Primary}]; ok && seen {
		return max(0, p.PositionBytes-t.PositionBytes)
	}
	if t.LagBytes != nil {
		return *t.LagBytes
	}
	return 0
}

// lossByLag rests on what the target says of itself, for a leader that has not heard
// both copies since it started: not for how long a primary goes on that outlives its
// lease.
func (s *Snapshot) lossByLag(d *v1alpha1.Dataset, target, goesOn string) v1alpha1.LossEstimate {
	behind, known := s.lag(d, target)
	if !known {
		return unknown(fmt.Sprintf("%s does not tell how far it is behind, and this leader has not seen it level with %s", target, d.Status.Primary))
	}
	// The lease counts also for a primary that is heard: it may fall silent in the moment
	// in which somebody agrees, and the target follows it no longer then.
	loss := v1alpha1.LossEstimate{Possible: true, Seconds: ceil(s.Config.leaseBound() + behind), Bytes: s.missing(d, target)}
	loss.Message = fmt.Sprintf("dataset %s: %s was %d s and %d bytes behind at most when last observed", key(d), target, loss.Seconds, loss.Bytes)
	if goesOn != "" {
		return unknown(goesOn + "; " + loss.Message)
	}
	return loss
}

// lag bounds the time since the newest instant up to which a copy holds everything, by
// its own word; false if it gives none. That it lacks nothing means nothing of what has
// reached it: what is under way to it, and its word to the leader, count on top.
func (s *Snapshot) lag(d *v1alpha1.Dataset, target string) (time.Duration, bool) {
	if t, seen := s.Observed[Copy{key(d), target}]; seen && t.LagSeconds != nil {
		return time.Duration(*t.LagSeconds)*time.Second + t.Age + s.Config.transit(), true
	}
	ms := memberStatus(d, target)
	if ms == nil || ms.LagSeconds == nil {
		return 0, false
	}
	return time.Duration(*ms.LagSeconds)*time.Second + max(0, s.Now.Sub(ms.ObservedAt.Time)) + s.Config.transit(), true
}

func unknown(why string) v1alpha1.LossEstimate {
	return v1alpha1.LossEstimate{Possible: true, Extent: v1alpha1.LossUnknown, Seconds: unknownLoss, Message: "unknown, because " + why}
}

func worse(a, b v1alpha1.LossEstimate) v1alpha1.LossEstimate {
	if !a.Possible {
		return b
	}
	if !b.Possible {
		return a
	}
	out := v1alpha1.LossEstimate{Possible: true, Extent: a.Extent, Seconds: max(a.Seconds, b.Seconds), Bytes: a.Bytes + b.Bytes, Message: a.Message + "; " + b.Message}
	if b.Extent != "" {
		out.Extent = b.Extent
	}
	return out
}

// extent is a loss in words.
func extent(l *v1alpha1.LossEstimate) string {
	if l.Extent == v1alpha1.LossUnknown {
		return "unknown"
	}
	return fmt.Sprintf("%d s", l.Seconds)
}

// stepLoss is the record that more is lost than was accepted.
const stepLoss = "loss"

// lossGrown holds back a promotion that would lose more than was accepted (invariant
// I2), and journals what is lost, for RPO. It is asked when the old primary is proven
// stopped: what was acknowledged by now is all that ever will be. revision is that of
// the fence.
func (x *step) lossGrown(d *v1alpha1.Dataset, cluster string, revision int64) finding {
	st, run, target := x.status(), x.was.Run, d.Status.Primary
	if x.planned() || st.Loss == nil {
		return finding{}
	}
	if asked := journal(st, stepLoss, d.Name); asked != nil { // it is what it was: the old primary had stopped
		if CountApprovals(x.Snapshot, x.policyOf(run), run.Name, stepResume, run.Spec.Requester, asked.StartedAt.Time, st.Loss).Enough {
			x.finish(stepLoss, target, d.Name, asked.Message+"; accepted")
			return finding{}
		}
		return x.moreLost(d, asked.Message)
	}
	grown := x.lost(d, cluster, revision)
	x.found(d, grown)
	if st.Loss.Extent == v1alpha1.LossUnknown || grown.Seconds <= st.Loss.Seconds {
		return finding{}
	}
	grown.Bytes = st.Loss.Bytes
	found := extent(&grown)
	if grown.Message != "" {
		found = grown.Message
	}
	text := fmt.Sprintf("the loss at %s is %s, and not within the %s that were accepted: %s goes without what %s acknowledged until it stopped", target, found, extent(st.Loss), target, cluster)
	grown.Message = text
	x.begin(stepLoss, target, d.Name)
	journal(st, stepLoss, d.Name).Message = text
	st.Loss = &grown
	return x.moreLost(d, text)
}

// lost bounds what the coming primary lacks, when the old one, whose role ended with the
// commit at revision, is proven stopped now.
func (x *step) lost(d *v1alpha1.Dataset, cluster string, revision int64) v1alpha1.LossEstimate {
	target := d.Status.Primary
	if d.Status.UnsettledAfter > 0 {
		return x.lostUnsettled(d, cluster)
	}
	if inSyncSet(d, target) {
		return v1alpha1.LossEstimate{}
	}
	since := x.sinceHeard(cluster, revision)
	lacks, known := x.lag(d, target)
	o, seen := x.Observed[Copy{key(d), target}]
	trailed := seen && o.Held != nil
	if trailed {
		lacks, known = *o.Held+x.Config.transit(), true
	}
	switch outlives := x.outlives(d, cluster); {
	case !trailed && outlives != "" && since > x.Config.leaseBound():
		return unknown(outlives + fmt.Sprintf("; that was for %v after it was last heard with its role", since.Round(time.Second)))
	case !known:
		return unknown(fmt.Sprintf("%s may have gone on writing after that was accepted, and %s does not tell how far it is behind", cluster, target))
	case outlives == "":
		// Its newest renewal, whatever that named: of the older ones of a cluster that is
		// heard again the book may say that they are a little older than they are.
		_, silent := x.Fence(cluster, 0)
		lacks -= max(0, silent-x.Config.leaseBound())
	}
	return v1alpha1.LossEstimate{Possible: true, Seconds: max(0, ceil(lacks))}
}

// found journals what the proof of the old primary's stop says about the loss, as far as
// that bounds it.
func (x *step) found(d *v1alpha1.Dataset, l v1alpha1.LossEstimate) {
	if l.Extent == v1alpha1.LossUnknown {
		return
	}
	for i := range x.status().Datasets {
		if rd := &x.status().Datasets[i]; rd.Name == d.Name {
			rd.LossSeconds = &l.Seconds
			x.note(NoteObservation, key(d).String(), fmt.Sprintf("%s lacks at most what %s acknowledged in %d s", rd.Target, rd.PreviousPrimary, l.Seconds), 0)
		}
	}
}

// rpo is the loss in words: what was found when the old primaries were proven stopped,
// as far as that bounds it, and what was accepted before. A sync target holds every
// acknowledged write.
func rpo(st *v1alpha1.RecoveryRunStatus) string {
	l := st.Loss
	if l == nil || !l.Possible {
		return "0"
	}
	worst := int64(0)
	for _, rd := range st.Datasets {
		if rd.LossSeconds == nil {
			worst = l.Seconds
			break
		}
		worst = max(worst, *rd.LossSeconds)
	}
	if worst >= unknownLoss {
		return "unknown, accepted by approval"
	}
	return fmt.Sprintf("at most %d s (%d bytes when last observed); %s accepted by approval", worst, l.Bytes, extent(l))
}

func (x *step) moreLost(d *v1alpha1.Dataset, text string) finding {
	accept := fmt.Sprint(x.status().Loss.Seconds)
	if x.status().Loss.Extent == v1alpha1.LossUnknown {
		accept = extent(x.status().Loss)
	}
	return finding{reason: ReasonLossGrown, text: fmt.Sprintf("dataset %s: %s%s --accept-loss %s", key(d), text, x.resumeHint(), accept)}
}
