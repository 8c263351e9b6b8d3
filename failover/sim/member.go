package sim

import (
	"fmt"
	"math"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/failover/lease"
	"tripod.dev/tripod/failover/trail"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

var (
	epochZero = time.Unix(1_800_000_000, 0) // wall time at the start
)

// member is one hub member.
type member struct {
	w     *world
	id    int
	clock clock
	up    bool
	boot  int
	// started is the real time of its start.
	started time.Duration
	paused  bool
	held    []func() // events that came while it was paused

	applied int
	state   objects
	rev     int64
	book    *lease.Book

	believes bool
	term     uint64
	leading
}

// leading is what a member knows in one term.
type leading struct {
	since     time.Duration
	outage    bool
	judged    bool
	reported  [centers]time.Duration
	spoke     [centers]bool
	heard     map[string]map[string]time.Duration
	gapless   map[string]time.Duration
	waiting   []beat
	observed  map[failover.Copy]seen
	trails    [maxLanes]*trail.Book
	detection failover.Detection
	busy      bool
	careful   time.Duration // no turn before is a whole one
	results   map[string]failover.Result
	inWork    map[string]bool
	lastSent  map[string]time.Duration
}

type seen struct {
	o         failover.Observed
	at, since time.Duration // it came, and the first in a row that say that it runs
}

// beat is a heartbeat that waits for its renewal.
type beat struct {
	lane    *lane
	cluster int
	seq     uint64
	via     int
}

func (m *member) now() time.Duration { return m.clock.at(m.w.now) }
func (m *member) works() bool        { return m.up && !m.paused && m.w.power[m.id] }

// local runs an event of this process, later if it is paused, never if it died.
func (m *member) local(do func()) {
	switch {
	case !m.up:
	case m.paused:
		m.held = append(m.held, do)
	default:
		do()
	}
}

// every repeats do at the pace of the member's clock while it lives.
func (m *member) every(d time.Duration, do func()) {
	boot := m.boot
	var again func()
	again = func() {
		if m.boot != boot || !m.up {
			return
		}
		m.local(do)
		m.w.after(m.clock.in(d), again)
	}
	m.w.after(m.w.between(0, d), again)
}

func (m *member) start() {
	m.boot++
	m.up, m.paused, m.held = true, false, nil
	m.believes, m.term, m.leading = false, 0, leading{}
	m.book, m.started = lease.NewBook(m.w.lease, m.now()), m.w.now
	// What was applied before is on disk; the renewals in it are not replayed.
	m.every(m.w.lease.Tick, m.report)
	m.every(200*time.Millisecond, m.renew)
	m.every(400*time.Millisecond, m.turn)
}

func (m *member) stop() { m.boot++; m.up = false; m.believes = false }

func (m *member) resume() {
	m.paused = false
	held := m.held
	m.held = nil
	for _, do := range held {
		m.local(do)
	}
}

// catchUp applies what the true leader can send.
func (m *member) catchUp() {
	w := m.w
	if !m.works() || w.leader < 0 || w.leader != m.id && !w.linked(w.leader, m.id) {
		return
	}
	for ; m.applied < len(w.log); m.applied++ {
		e := w.log[m.applied]
		m.rev = e.revision
		if e.write != nil {
			m.state.apply(e.write)
			continue
		}
		m.book.Applied(e.renewed, e.revision, e.steady, m.now())
	}
}

func (m *member) lead(term uint64) {
	m.catchUp() // the barrier
	m.believes, m.term = true, term
	m.leading = leading{since: m.now(), heard: map[string]map[string]time.Duration{}, gapless: map[string]time.Duration{},
		observed: map[failover.Copy]seen{}, results: map[string]failover.Result{}, inWork: map[string]bool{}, lastSent: map[string]time.Duration{}}
}

func (m *member) stepDown() { m.believes = false }

// report tells the leader that this vantage is alive.
func (m *member) report() {
	id := m.id
	m.toLeader(func(l *member) { l.reported[id], l.spoke[id] = l.now(), true })
}

// toLeader reaches whom this member takes for the leader.
func (m *member) toLeader(do func(l *member)) {
	to := m.w.leader
	if m.believes {
		to = m.id
	}
	if to < 0 {
		return
	}
	m.w.send(m.id, to, func() {
		l := m.w.members[to]
		l.local(func() {
			if l.believes {
				do(l)
			}
		})
	})
}

// heartbeat arrives at this member and is passed on.
func (m *member) heartbeat(b beat, o failover.Observed) {
	m.toLeader(func(l *member) {
		name := places[b.cluster]
		if l.heard[name] == nil {
			l.heard[name] = map[string]time.Duration{}
		}
		last := time.Duration(math.MinInt64 / 2)
		for _, at := range l.heard[name] {
			last = max(last, at)
		}
		if l.now()-last > 3*l.w.lease.Tick {
			l.gapless[name] = l.now()
		}
		l.heard[name][places[m.id]] = l.now()
		l.reported[m.id], l.spoke[m.id] = l.now(), true
		l.note(failover.Copy{Dataset: b.lane.dataset(), Cluster: name}, o)
		l.trace(b.lane.id, name, o)
		l.waiting = append(l.waiting, b)
	})
}

// note takes the newest that came, which may be older than another one.
func (m *member) note(c failover.Copy, o failover.Observed) {
	next := seen{o, m.now(), m.now()}
	if old, ok := m.observed[c]; ok && old.o.State.Runs() {
		next.since = old.since
	}
	m.observed[c] = next
}

// trace follows how far each copy is.
func (m *member) trace(lane int, name string, o failover.Observed) {
	if m.trails[lane] == nil {
		m.trails[lane] = trail.NewBook()
	}
	mark := trail.Mark{Epoch: o.Epoch, Position: o.PositionBytes}
	switch {
	case o.Role == v1alpha1.RolePrimary && o.State == v1alpha1.StateRunning:
		m.trails[lane].Wrote(mark, m.now())
	case o.State == v1alpha1.StateStreaming:
		m.trails[lane].Reached(name, mark)
	}
}

// renew proposes one renewal of everyone heard and answers when it is applied.
func (m *member) renew() {
	if !m.believes || len(m.waiting) == 0 {
		return
	}
	beats := m.waiting
	m.waiting = nil
	var names []string
	have := map[int]bool{}
	for _, b := range beats {
		if !have[b.cluster] {
			have[b.cluster] = true
			names = append(names, places[b.cluster])
		}
	}
	m.w.propose(m, entry{renewed: names, steady: m.book.Steady(m.now())}, func(_ metav1.Object, err error) {
		if err != nil {
			return
		}
		stamp := lease.Stamp{Incarnation: 1, Term: m.term, Revision: m.rev}
		for _, b := range beats {
			d := m.state.units[b.lane.id].dataset
			g := grant{seq: b.seq, stamp: stamp, epoch: d.Status.Epoch, primary: holdsPrimary(d, places[b.cluster]), pledgers: m.pledgers(d, places[b.cluster])}
			m.w.send(m.id, b.via, func() { m.w.send(b.via, b.cluster, func() { b.lane.sites[b.cluster].granted(g) }) })
		}
	})
}

// holdsPrimary is the role rule of safety.md section 6, written down once more.
func holdsPrimary(d *v1alpha1.Dataset, cluster string) bool {
	st := d.Status
	return st.Primary == cluster && (st.Phase == v1alpha1.DatasetSteady || st.Phase == v1alpha1.DatasetClosing || st.Phase == v1alpha1.DatasetPromoting)
}

func (m *member) fence(cluster string, revision int64) (bool, time.Duration) {
	over := m.book.OverBefore(cluster, revision, m.now()) || m.w.opt.Bug == LeaseNotWaitedFor && revision != 0
	return over, m.now() - m.book.Counted(cluster, revision)
}

func (m *member) snapshot() *failover.Snapshot {
	s := &failover.Snapshot{Config: m.w.engine, Now: epochZero.Add(m.w.now), Uptime: m.now(), Previous: m.detection, Fence: m.fence,
		Brief:     m.brief(),
		Approvals: m.state.approvals,
		Observed:  map[failover.Copy]failover.Observed{}, Results: m.results}
	for _, u := range m.state.units {
		s.Applications, s.Datasets, s.Services = append(s.Applications, u.app), append(s.Datasets, u.dataset), append(s.Services, u.service)
	}
	if m.state.plan != nil {
		s.Plans = append(s.Plans, m.state.plan)
	}
	for _, name := range sorted(m.state.runs) {
		s.Runs = append(s.Runs, m.state.runs[name])
	}
	for c, o := range m.observed {
		o.o.Age = m.now() - o.at
		if o.o.State.Runs() {
			o.o.Runs = o.at - o.since
		}
		if book := m.trails[laneOf(c.Dataset.Name)]; book != nil {
			if at, known := book.Held(c.Cluster); known {
				since := m.now() - at
				o.o.Held = &since
			}
		}
		s.Observed[c] = o.o
	}
	s.Fleet = m.fleet()
	m.w.opt.Bug.blind(s)
	m.w.opt.Bug.blindToPledges(s)
	m.w.opt.Bug.blindToPlans(s)
	return s
}

// brief is as the production shell decides it, with any time that a turn may take.
func (m *member) brief() bool {
	if !m.w.large {
		return false
	}
	if m.now() < m.careful {
		return true
	}
	m.careful = m.now() + time.Duration(m.w.sixth.Int64N(int64(time.Second/2)))
	return false
}

func (m *member) fleet() failover.Fleet {
	f := failover.Fleet{Sightings: map[string]failover.Sighting{}, Watching: m.now() - m.since, Prompt: m.book.Prompt(m.now())}
	youngest := time.Hour
	for i, name := range places {
		f.Clusters = append(f.Clusters, failover.Cluster{Name: name, Region: regions[i], Center: name, AgentAddress: m.w.agentAddress(name)})
		if m.spoke[i] {
			f.Members = append(f.Members, failover.HubMember{Name: name, Center: name, Reported: m.now() - m.reported[i]})
		}
		over, silent := m.fence(name, 0)
		youngest = min(youngest, silent)
		s := failover.Sighting{LeaseOver: over, Silent: silent, HeardBy: map[string]time.Duration{}}
		newest := time.Duration(math.MaxInt64)
		for by, at := range m.heard[name] {
			s.HeardBy[by] = m.now() - at
			newest = min(newest, m.now()-at)
		}
		if newest <= 3*m.w.lease.Tick {
			s.Stable = m.now() - m.gapless[name]
		}
		if at, ever := m.book.Lapsed(name); ever && m.w.opt.Bug != BreakerForgets {
			s.Lapsed = m.now() - at
		}
		f.Sightings[name] = s
	}
	if !m.judged {
		m.judged, m.outage = true, youngest > m.w.lease.TTL || m.book.Steady(m.now()) < m.w.engine.Grace
	}
	f.AfterOutage = m.outage
	return f
}

// turn is the production shell in small: one turn, its writes in parallel, its
// commands beside them, and the next turn as soon as the writes are answered.
func (m *member) turn() {
	if !m.believes || m.busy {
		return
	}
	e := failover.Turn(m.snapshot())
	m.detection = e.Detection
	commands, writes := m.w.opt.Bug.twist(m, e)
	for _, c := range commands {
		m.command(c)
	}
	for _, h := range e.Hooks {
		m.hook(h)
	}
	term, left, wrote := m.term, len(writes), false
	m.busy = left > 0
	for _, o := range writes {
		if r, ok := o.(*v1alpha1.RecoveryRun); ok && r.ResourceVersion == "" {
			r.CreationTimestamp = metav1.NewTime(epochZero.Add(m.w.now))
		}
		m.w.propose(m, entry{write: o}, func(_ metav1.Object, err error) {
			wrote = wrote || err == nil
			if left--; left == 0 && m.term == term {
				m.busy = false
				if wrote {
					m.turn()
				}
			}
		})
	}
}

// command sends what is not in work, answered, or sent a moment ago.
func (m *member) command(c failover.Command) {
	_, answered := m.results[c.ID]
	last, sent := m.lastSent[c.ID]
	if m.inWork[c.ID] || c.Every == 0 && answered || c.Every > 0 && sent && m.now()-last < c.Every {
		return
	}
	m.inWork[c.ID], m.lastSent[c.ID] = true, m.now()
	answer := m.answers(c.ID)
	m.w.after(m.clock.in(c.Bound), func() { m.local(func() { answer(failover.Result{Outcome: failover.Unreachable, Message: "timeout"}) }) })
	to := siteOf(c.Cluster)
	via := m.route(to)
	if via < 0 {
		m.w.after(100*time.Millisecond, func() { m.local(func() { answer(failover.Result{Outcome: failover.Unreachable}) }) })
		return
	}
	m.w.trace("%s commands %s of %s: epoch %d revision %d sync %v (%s)", places[m.id], c.Verb, c.Cluster, c.Epoch, c.Revision, c.SyncSet, c.ID)
	site := m.w.lanes[laneOf(c.Dataset.Name)].sites[to]
	ended, arrived := m.session(c.ID, site, via, answer), false
	m.w.send(m.id, via, func() {
		m.w.send(via, to, func() {
			arrived = true
			site.carry(c, func(r failover.Result) {
				m.w.send(to, m.id, func() { m.local(func() { answer(r) }) })
				m.w.after(m.w.lease.TTL, ended) // unless the answer arrives
			})
		})
	})
	m.w.after(m.w.lease.TTL, func() {
		if !arrived {
			ended()
		}
	})
	if m.w.chance(0.1) { // repeated by the network, late; a drill's by the same session alone
		boot := site.agentBoot
		m.w.after(m.w.between(100*time.Millisecond, 12*time.Second), func() {
			if m.w.power[to] && (c.Verb != failover.VerbDrillStart || site.agentBoot == boot) {
				site.carry(c, func(failover.Result) {})
			}
		})
	}
}

// session watches over the stream that carries a command, and answers when it has
// ended: with the agent's process, or when nothing has come over it for a TTL. What
// it has lost has ended it, too.
func (m *member) session(id string, s *site, via int, answer func(failover.Result)) (ended func()) {
	sent := m.lastSent[id] // what is sent again has the same name
	ended = func() {
		if m.lastSent[id] != sent {
			return
		}
		m.local(func() { answer(failover.Result{Outcome: failover.Unreachable, Message: "the session ended"}) })
	}
	boot, heard := s.agentBoot, m.w.now
	var look func()
	look = func() {
		if s.agentBoot == boot && s.works() && m.w.linked(s.id, via) && m.w.linked(via, m.id) {
			heard = m.w.now
		}
		switch {
		case !m.inWork[id] || m.lastSent[id] != sent:
		case m.w.now-heard > m.w.lease.TTL:
			ended()
		default:
			m.w.after(m.w.lease.Tick, look)
		}
	}
	m.w.after(m.w.lease.Tick, look)
	return ended
}

// answers takes the first answer in this term.
func (m *member) answers(id string) func(failover.Result) {
	term := m.term
	return func(r failover.Result) {
		if m.term == term && m.believes && m.inWork[id] {
			delete(m.inWork, id)
			r.At = m.now()
			m.results[id] = r
			m.turn()
		}
	}
}

// route is the member whose session reaches a cluster, or -1.
func (m *member) route(to int) int {
	if m.w.deaf[to] {
		return -1
	}
	for _, via := range []int{m.id, (m.id + 1) % centers, (m.id + 2) % centers} {
		if m.w.members[via].works() && m.w.linked(m.id, via) && m.w.linked(via, to) {
			return via
		}
	}
	return -1
}

func siteOf(cluster string) int {
	for i, p := range places {
		if p == cluster {
			return i
		}
	}
	panic(fmt.Sprintf("sim: no cluster %s", cluster))
}
