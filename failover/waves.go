package failover

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// Reasons of a plan's run and of its applications.
const (
	ReasonSomeFailed    = "SomeFailed"
	ReasonManual        = "Manual"
	ReasonDependency    = "DependencyNotRecovered"
	ReasonOtherRun      = "OtherRun"
	ReasonNameTaken     = "NameTaken"
	ReasonMoved         = "MovedAlready"
	ReasonSlow          = "Slow"
	ReasonNotRun        = "NotRunning"
	ReasonWaitsForTurn  = "WaitsForTurn"
	ReasonWaitsForOther = "WaitsForDependency"
)

// Pace of a plan's run, by wall clock.
const (
	// accountEvery is how often the states alone are journalled, and accountEach at least
	// for each application: the journal of a thousand is 400 KB.
	accountEvery = time.Second
	accountEach  = 5 * time.Millisecond
	// targetPatience is how long an application may look for a target before it
	// is called stuck, patience how long its run may take: the next wave does not
	// wait for it any longer.
	targetPatience = 10 * time.Second
	patience       = 2 * time.Minute
	// startsAtOnce bounds the runs that one turn creates, so that the first of
	// them go on while the last are written.
	startsAtOnce = 64
)

// state of one application as its run says.
type state struct {
	v1alpha1.RunApplicationState
	run             string
	reason, message string
	ready           bool // waits for nothing but its wave's turn
}

// waves follows the applications, begins those whose turn has come, and ends the
// run when nothing is left to do.
func (x *planStep) waves() {
	x.steered()
	x.pastHook()
	if phase := x.status().Phase; phase != v1alpha1.RunWaves && x.status().ResumePhase != v1alpha1.RunWaves {
		return // paused before anything was begun, or ended there
	}
	x.retry()
	x.approve()
	x.observe()
	fresh := len(x.status().Orders) > len(x.was.Run.Status.Orders)
	stopping := x.abortedBy()
	switch {
	case stopping != "":
		x.stop(stopping)
	case x.status().Phase == v1alpha1.RunWaves && x.was.Run.Spec.Requester == "" && !x.det.Automatic():
		x.wait(ReasonBreaker, x.det.Breaker+x.det.Waiting)
	case x.status().Phase == v1alpha1.RunWaves && !fresh:
		if x.status().Reason == ReasonBreaker {
			x.wait("", "")
		}
		x.start()
	}
	x.conclude()
	x.account()
}

// retry has what failed tried again when a person says so.
func (x *planStep) retry() {
	st := x.status()
	for _, a := range x.orders(v1alpha1.StepRetry, v1alpha1.StepResume) {
		if a.Spec.Step == v1alpha1.StepResume && st.Reason != ReasonSomeFailed {
			continue
		}
		x.follow(a)
		if st.Reason == ReasonSomeFailed {
			x.enter(v1alpha1.RunWaves)
		}
		anew := st.Timeline.ApprovedAt == nil
		for i := range st.Applications {
			p := &st.Applications[i]
			if p.State != v1alpha1.ApplicationFailed && x.stateOf(p).RunApplicationState != v1alpha1.ApplicationFailed {
				continue
			}
			was := *p
			p.Attempt, p.State, p.Reason, p.Message = p.Attempt+1, v1alpha1.ApplicationWaiting, "", ""
			x.assess(p, true)
			anew = anew || asksMore(was, *p)
		}
		if anew { // what people agreed to was something else
			st.Timeline.AwaitingSince, st.Timeline.ApprovedAt = nil, nil
		}
		x.ask()
	}
}

// asksMore is true where an approval of an application as it was does not cover it
// as it is assessed now.
func asksMore(was, now v1alpha1.RunApplication) bool {
	if now.NeedsApproval == "" {
		return false
	}
	more := now.Loss != nil && now.Loss.Possible && (was.Loss == nil || !was.Loss.Possible || now.Loss.Seconds > was.Loss.Seconds)
	return was.NeedsApproval == "" || now.Epoch != was.Epoch || now.Target != was.Target || more
}

// approve judges the approvals that applications of an automatic run wait for
// while the others go on.
func (x *planStep) approve() {
	st := x.status()
	x.restrain()
	if st.Timeline.ApprovedAt != nil || !x.ask() {
		return
	}
	x.begin(stepApprove, "", "")
	approved := x.round()
	for i := range st.Applications {
		a := &st.Applications[i]
		open := a.State != v1alpha1.ApplicationCompleted && a.State != v1alpha1.ApplicationFailed && x.run(childName(x.was.Run.Name, a)) == nil
		if approved.Rejected != "" && a.NeedsApproval != "" && open {
			a.State, a.Reason, a.Message = v1alpha1.ApplicationFailed, ReasonRejected, "rejected by "+approved.Rejected
		}
	}
}

// observe works out the state of every application. They are in an order in which
// each comes after those that it depends on.
func (x *planStep) observe() {
	all := x.status().Applications
	at := make(map[string]int, len(all))
	x.states = make([]state, len(all))
	for i := range all {
		a := &all[i]
		at[a.Key()] = i
		s := x.stateOf(a)
		if s.RunApplicationState == v1alpha1.ApplicationWaiting {
			s = x.waiting(a, at)
		}
		if s.RunApplicationState == v1alpha1.ApplicationHeld || s.RunApplicationState == v1alpha1.ApplicationFailed {
			if x.movedAlready(a) {
				s = state{RunApplicationState: v1alpha1.ApplicationCompleted, run: a.Run, reason: ReasonMoved, message: "it is not in " + placeName(x.was.Run.Spec.From) + " any more"}
			}
		}
		x.states[i] = s
	}
}

// stateOf says how far one application is, by its own run.
func (x *planStep) stateOf(a *v1alpha1.RunApplication) state {
	if a.State == v1alpha1.ApplicationCompleted || a.State == v1alpha1.ApplicationFailed {
		return state{RunApplicationState: a.State, run: a.Run, reason: a.Reason, message: a.Message}
	}
	s := state{run: childName(x.was.Run.Name, a)}
	r := x.run(s.run)
	if r == nil {
		s.run = ""
		return s
	}
	s.reason, s.message = r.Status.Reason, r.Status.Message
	age := x.Now.Sub(r.CreationTimestamp.Time)
	s.RunApplicationState = v1alpha1.ApplicationRunning
	switch phase := r.Status.Phase; {
	case r.Spec.Parent != x.was.Run.Name || r.Spec.Application.Name != a.Name || r.Spec.Application.Namespace != a.Namespace:
		s.RunApplicationState, s.reason = v1alpha1.ApplicationFailed, ReasonNameTaken
		s.message = fmt.Sprintf("another run is named %s: tripodctl run retry %s takes another name", s.run, x.was.Run.Name)
	case phase == v1alpha1.RunCompleted,
		phase == v1alpha1.RunAborted && (s.reason == ReasonNothingToDo || s.reason == ReasonSourceBack):
		s.RunApplicationState = v1alpha1.ApplicationCompleted
	case phase == v1alpha1.RunAborted:
		s.RunApplicationState = v1alpha1.ApplicationFailed
	case phase == v1alpha1.RunPaused, phase == v1alpha1.RunAwaitingApproval,
		phase == v1alpha1.RunPreflight && age > targetPatience, age > patienceFor(r.Spec.Action):
		s.RunApplicationState = v1alpha1.ApplicationStuck
		if s.reason == "" {
			s.reason = ReasonSlow
		}
	}
	return s
}

// patienceFor is how long a run may take before the next wave waits for it no longer:
// a drill copies a whole dataset.
func patienceFor(action v1alpha1.Action) time.Duration {
	if action == v1alpha1.ActionDrill {
		return drillBound
	}
	return patience
}

// waiting says what an application without a run waits for.
func (x *planStep) waiting(a *v1alpha1.RunApplication, at map[string]int) state {
	s := state{ready: true, reason: ReasonWaitsForTurn}
	for _, dep := range a.After {
		i, known := at[dep]
		if !known {
			continue
		}
		switch d := x.states[i]; d.RunApplicationState {
		case v1alpha1.ApplicationCompleted:
		case v1alpha1.ApplicationStuck, v1alpha1.ApplicationHeld, v1alpha1.ApplicationFailed:
			return state{RunApplicationState: v1alpha1.ApplicationHeld, reason: ReasonDependency,
				message: fmt.Sprintf("depends on %s, which is %s: %s", dep, d.RunApplicationState, d.reason)}
		default:
			s.ready, s.reason, s.message = false, ReasonWaitsForOther, "waits for "+dep
		}
	}
	if !s.ready {
		return s
	}
	if a.NeedsApproval != "" && x.was.Run.Status.Timeline.ApprovedAt == nil {
		return state{RunApplicationState: v1alpha1.ApplicationStuck, reason: ReasonApproval, message: a.NeedsApproval}
	}
	if app := x.applicationNamed(a); app != nil {
		r := x.activeRun(app)
		if r == nil && x.was.Run.Spec.Action == v1alpha1.ActionDrill {
			r = x.activeDrill(app)
		}
		if r != nil {
			return x.movedByOther(r)
		}
	}
	return s
}

// movedByOther is the state of an application that another run moves. The waves do not wait
// for that run, unless it only brings back what was: then the application is free in
// a moment, and goes before the next wave as it should.
func (x *planStep) movedByOther(r *v1alpha1.RecoveryRun) state {
	s := state{RunApplicationState: v1alpha1.ApplicationStuck, reason: ReasonOtherRun, message: "run " + r.Name + " is under way"}
	if r.Status.Phase == v1alpha1.RunReturning && x.Now.Sub(r.CreationTimestamp.Time) <= patience {
		s.RunApplicationState = v1alpha1.ApplicationWaiting
	}
	return s
}

// movedAlready is true when nothing of an application is left to move: another run
// has done it.
func (x *planStep) movedAlready(a *v1alpha1.RunApplication) bool {
	app := x.applicationNamed(a)
	if app == nil || x.was.Run.Spec.Action == v1alpha1.ActionDrill {
		return false
	}
	datasets := x.datasetsOf(app)
	for _, d := range datasets {
		if d.Status.Phase != v1alpha1.DatasetSteady {
			return false
		}
	}
	return len(x.movedBy(x.was.Run, datasets)) == 0
}

// start makes the runs of the applications whose turn has come: of the first wave
// that is not settled, within its parallelism.
func (x *planStep) start() {
	st := x.status()
	open := int32(len(st.Waves))
	running := make([]int32, len(st.Waves))
	for i, s := range x.states {
		wave := st.Applications[i].Wave
		if s.RunApplicationState == v1alpha1.ApplicationRunning {
			running[wave]++
		}
		if s.RunApplicationState == v1alpha1.ApplicationRunning || s.RunApplicationState == v1alpha1.ApplicationWaiting {
			open = min(open, wave)
		}
	}
	open = x.waveHooks(open)
	for i := range x.states {
		a := &st.Applications[i]
		limit := int32(0)
		if a.Wave <= open {
			limit = st.Waves[a.Wave].Parallelism
		}
		if !x.states[i].ready || a.Wave > open || limit > 0 && running[a.Wave] >= limit || len(x.create) >= startsAtOnce {
			continue
		}
		child := x.child(a)
		x.create = append(x.create, child)
		x.states[i] = state{RunApplicationState: v1alpha1.ApplicationRunning, run: child.Name}
		running[a.Wave]++
	}
}

// child is the run of one application. Its From tells a run that nobody ordered
// which loss it makes up for, as Decide does.
func (x *planStep) child(a *v1alpha1.RunApplication) *v1alpha1.RecoveryRun {
	child := &v1alpha1.RecoveryRun{Spec: *x.was.Run.Spec.DeepCopy()}
	child.Name = childName(x.was.Run.Name, a)
	child.Spec.Parent = x.was.Run.Name
	if child.Spec.Action == v1alpha1.ActionFailback {
		child.Spec.To = v1alpha1.Place{} // home
	}
	child.Spec.Application = v1alpha1.ApplicationReference{Namespace: a.Namespace, Name: a.Name}
	if app := x.applicationNamed(a); app != nil && child.Spec.Requester == "" {
		if lost := x.lostDatasets(x.det, app); len(lost) > 0 {
			c, _ := x.Fleet.Cluster(lost[0].Status.Primary)
			child.Spec.From = v1alpha1.Place{Cluster: lost[0].Status.Primary, Center: c.Center}
		}
	}
	return child
}

// childName is RUN.ATTEMPT.NAMESPACE.NAME, or ends in a digest where that is too
// long for a name.
func childName(run string, a *v1alpha1.RunApplication) string {
	name := fmt.Sprintf("%s.%d.%s.%s", run, a.Attempt, a.Namespace, a.Name)
	if len(name) <= 253 {
		return name
	}
	return fmt.Sprintf("%s.%x", strings.TrimRight(name[:210], ".-"), sha256.Sum256([]byte(name)))[:230]
}

// stop ends the run on a person's word when nothing is under way any more. Runs
// that have changed nothing yet and switchovers end by themselves, too.
func (x *planStep) stop(by string) {
	under := 0
	for i := range x.states {
		r := x.run(childName(x.was.Run.Name, &x.status().Applications[i]))
		if r != nil && !Finished(r.Status.Phase) && r.Status.Phase != v1alpha1.RunPaused {
			under++
		}
	}
	if under > 0 {
		x.wait(ReasonAborting, fmt.Sprintf("aborted by %s: nothing new is begun; %d runs under way end first", by, under))
		return
	}
	for i := range x.states {
		if s := &x.states[i]; s.RunApplicationState != v1alpha1.ApplicationCompleted {
			s.RunApplicationState, s.reason, s.message, s.ready = v1alpha1.ApplicationFailed, ReasonAborted, "aborted by "+by, false
		}
	}
	x.abort(ReasonAborted, "aborted by "+by+": "+x.summary())
}

// conclude ends the run when everything has been moved, or pauses it when what is
// left cannot be without a person.
func (x *planStep) conclude() {
	st := x.status()
	p := x.progress()
	if st.Phase != v1alpha1.RunWaves && st.Reason != ReasonSomeFailed || p.Waiting+p.Running+p.Stuck > 0 {
		return
	}
	if p.Completed == p.Applications {
		if !x.afterPlan() {
			return
		}
		x.enter(v1alpha1.RunCompleted)
		st.Timeline.FinishedAt = x.mark()
		st.Message = x.summary()
		return
	}
	if st.Reason != ReasonSomeFailed {
		x.pause(ReasonSomeFailed, fmt.Sprintf("%s. Try these again with: tripodctl run retry %s; or end it with: tripodctl run abort %s", x.summary(), x.was.Run.Name, x.was.Run.Name))
	}
}

func (x *planStep) progress() v1alpha1.RunProgress {
	p := v1alpha1.RunProgress{Applications: int32(len(x.states))}
	for _, s := range x.states {
		switch s.RunApplicationState {
		case v1alpha1.ApplicationCompleted:
			p.Completed++
		case v1alpha1.ApplicationRunning:
			p.Running++
		case v1alpha1.ApplicationStuck:
			p.Stuck++
		case v1alpha1.ApplicationHeld:
			p.Held++
		case v1alpha1.ApplicationFailed:
			p.Failed++
		default:
			p.Waiting++
		}
	}
	return p
}

// summary says how many were moved, and which were not and why.
func (x *planStep) summary() string {
	p := x.progress()
	done := "moved"
	if x.was.Run.Spec.Action == v1alpha1.ActionDrill {
		done = "drilled"
	}
	text := fmt.Sprintf("%d of %d applications were %s", p.Completed, p.Applications, done)
	var not []string
	for i, s := range x.states {
		switch s.RunApplicationState {
		case v1alpha1.ApplicationFailed, v1alpha1.ApplicationHeld, v1alpha1.ApplicationStuck:
			not = append(not, fmt.Sprintf("%s is %s: %s %s", x.status().Applications[i].Key(), s.RunApplicationState, s.reason, s.message))
		}
	}
	if len(not) > 0 {
		text += "; " + some(not)
	}
	return text
}

// account journals the states: with every other change of the run, and else at
// its pace, because the journal is large and the states are in the runs anyway.
func (x *planStep) account() {
	was, st := &x.was.Run.Status, x.status()
	at := x.mark()
	every := max(accountEvery, time.Duration(len(st.Applications))*accountEach)
	paced := was.Progress != nil && was.Progress.At != nil && at.Sub(was.Progress.At.Time).Abs() < every
	if paced && !differ(was, st) {
		return
	}
	moves := map[string][]string{}
	for i := range st.Applications {
		a, s := &st.Applications[i], &x.states[i]
		if a.State != s.RunApplicationState {
			text := a.Key()
			if s.RunApplicationState != v1alpha1.ApplicationRunning && s.RunApplicationState != v1alpha1.ApplicationCompleted {
				text += " (" + strings.TrimSpace(s.reason+" "+s.message) + ")"
			}
			kind := orWaiting(s.RunApplicationState)
			moves[kind] = append(moves[kind], text)
		}
		a.State, a.Reason, a.Message = s.RunApplicationState, s.reason, s.message
		if s.run != "" {
			a.Run = s.run
		}
	}
	if st.Phase == v1alpha1.RunWaves && st.Reason != ReasonBreaker && st.Reason != ReasonAborting {
		st.Reason, st.Message = "", x.summary()
		if st.Timeline.ApprovedAt == nil && x.ask() {
			st.Reason, st.Message = ReasonApproval, x.question()
		}
	}
	for _, kind := range sortedKeys(moves) {
		x.note(NoteDecision, x.was.Run.Name, fmt.Sprintf("%s: %s", kind, strings.Join(moves[kind], ", ")), 0)
	}
	p := x.progress()
	p.At = at
	old := was.Progress.DeepCopy()
	if old != nil {
		old.At = at
	}
	if !differ(old, &p) {
		p.At = was.Progress.At // nothing else changed: nothing is to be written
	}
	st.Progress = &p
}

func orWaiting(s v1alpha1.RunApplicationState) string {
	if s == v1alpha1.ApplicationWaiting {
		return "Waiting"
	}
	return string(s)
}
