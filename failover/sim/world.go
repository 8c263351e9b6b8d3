// Package sim is a seeded discrete-event simulation of the failover engine. The
// pure cores that run in production run here too: failover.Turn on every hub
// member that believes it leads, lease.Book on every hub member and
// lease.Holder in every agent, and pledge.Collector and pledge.Book where agents
// live on pledges. Everything around them is modelled: Raft as a
// log with one true leader and members that learn late that they no longer are
// it, agents, guards and databases with clocks that drift, clients that write,
// a network that delays, loses, repeats and partitions, and centers that lose
// power.
//
// The checks (check.go) look at the modelled world only: which processes write,
// which writes were acknowledged, what is in the log. They share no code and no
// belief with the engine. One seed is one schedule, exactly.
package sim

import (
	"container/heap"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/failover/lease"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// Centers of the modelled fleet: one hub member and one cluster in each.
const centers = 3

var (
	places  = [centers]string{"north-1", "north-2", "south-1"}
	regions = [centers]string{"north", "north", "south"}
)

// Options of one run.
type Options struct {
	Seed uint64
	Bug  Bug
	// Pledges: agents live on them, and the hub is lost.
	Pledges bool
	// Plans: several applications that a plan moves, with hooks and drills.
	Plans bool
	// Quiet: no fault, and one switchover.
	Quiet bool
	// Flap: links that flap every 20 s for 10 minutes, and nobody who approves.
	Flap bool
	// Trace receives a line per notable event, or is nil.
	Trace func(string)
}

// Result of one run.
type Result struct {
	Seed       uint64
	Violations []string
	// Counts of what happened, so that a test can see that schedules bite.
	Promotions, Acknowledged, Runs, Elections int
	// Switchovers that were completed, and those that returned.
	Switchovers, Returns int
	// Failbacks among the switchovers.
	Failbacks int
	// Bounded counts looks at an approval of a loss that something bounds.
	Bounded int
	// PlanRuns, the runs that they made, hooks that were done, fences by attestation
	// and drills that came to an end by themselves.
	PlanRuns, Children, Hooks, Attested, Drills int
	// Instead counts runs that were ordered instead of others, and Taken those of them that
	// took a dataset.
	Instead, Taken int
	// Outages of the whole hub in which a primary was healthy throughout.
	Outages int
	// Pause is the longest time without an acknowledged write once there was one.
	Pause time.Duration
	Phase v1alpha1.DatasetPhase
}

type event struct {
	at time.Duration
	n  int
	do func()
}

type queue []event

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].n < q[j].n
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(e any)   { *q = append(*q, e.(event)) }
func (q *queue) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

// world is one run. now is real time, which no modelled process can read.
type world struct {
	opt    Options
	rng    *rand.Rand
	second *rand.Rand // of switchovers alone: the schedules without one stay as they were
	third  *rand.Rand // of failbacks and flaps
	fourth *rand.Rand // of plans
	fifth  *rand.Rand // of people who do not wait for a target
	sixth  *rand.Rand // of large fleets
	large  bool       // turns are brief for up to half a second after one that was not
	until  time.Duration
	now    time.Duration
	events queue
	n      int

	lease  lease.Config
	engine failover.Config

	power [centers]bool
	cut   [centers][centers]bool // from, to
	deaf  [centers]bool          // the cluster does not reach the hub, nor the hub it
	slow  bool                   // the network delays by seconds
	loss  float64

	members [centers]*member
	lanes   []*lane
	log     []entry
	truth   objects
	rev     int64
	leader  int // -1: none
	term    uint64
	without time.Duration // since when there is no working leader

	plans  planCheck
	far    far
	result Result
	// grown is called when the committed sync set has grown, or is nil.
	grown func(v1alpha1.DatasetStatus)
}

// clock of one process: a rate within the assumed drift and an origin.
type clock struct {
	rate   float64
	origin time.Duration
}

func (w *world) newClock() clock {
	rate := 1 + (w.rng.Float64()*2-1)*w.lease.Drift
	switch w.rng.IntN(4) {
	case 0:
		rate = 1 + w.lease.Drift
	case 1:
		rate = 1 - w.lease.Drift
	}
	return clock{rate, time.Duration(w.rng.Int64N(int64(time.Hour)))}
}

func (c clock) at(real time.Duration) time.Duration {
	return c.origin + time.Duration(float64(real)*c.rate)
}

// in is how much real time passes while the clock counts local.
func (c clock) in(local time.Duration) time.Duration {
	return time.Duration(float64(max(0, local)) / c.rate)
}

func (w *world) after(d time.Duration, do func()) {
	w.n++
	heap.Push(&w.events, event{w.now + max(0, d), w.n, do})
}

func (w *world) between(a, b time.Duration) time.Duration {
	return a + time.Duration(w.rng.Int64N(int64(b-a)+1))
}

func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

func (w *world) trace(format string, args ...any) {
	if w.opt.Trace != nil {
		w.opt.Trace(fmt.Sprintf("%9.3f ", w.now.Seconds()) + fmt.Sprintf(format, args...))
	}
}

// linked is true when a message sent now from center a reaches center b.
func (w *world) linked(a, b int) bool {
	return w.power[a] && w.power[b] && !w.cut[a][b]
}

// send delivers from one center to another, perhaps late, perhaps not at all.
func (w *world) send(from, to int, do func()) {
	if !w.linked(from, to) || from != to && w.chance(w.loss) {
		return
	}
	delay := w.between(time.Millisecond, 30*time.Millisecond)
	if from == to {
		delay = w.between(100*time.Microsecond, 2*time.Millisecond)
	} else if w.slow && w.chance(0.3) {
		delay = w.between(100*time.Millisecond, 4*time.Second)
	}
	w.after(delay, func() {
		if w.linked(from, to) {
			do()
		}
	})
}

// Run plays one schedule to its end.
func Run(opt Options) Result {
	w := newWorld(opt)
	w.schedule()
	for len(w.events) > 0 && w.events[0].at <= w.until {
		e := heap.Pop(&w.events).(event)
		w.now = e.at
		e.do()
	}
	for _, l := range w.lanes {
		l.check.atEnd()
	}
	return w.result
}

func newWorld(opt Options) *world {
	w := &world{opt: opt, rng: rand.New(rand.NewPCG(opt.Seed, 0x7269706f64)), second: rand.New(rand.NewPCG(opt.Seed, 0x7377697463)),
		third: rand.New(rand.NewPCG(opt.Seed, 0x686f6d65)), fourth: rand.New(rand.NewPCG(opt.Seed, 0x706c616e)), fifth: rand.New(rand.NewPCG(opt.Seed, 0x696e7374)),
		sixth: rand.New(rand.NewPCG(opt.Seed, 0x6c61726765)), until: end, lease: lease.LAN(), leader: -1}
	w.engine = failover.DefaultConfig(w.lease.Tick, w.lease.TTL)
	w.engine.Directive = 10 * time.Second
	w.engine.Pledges = opt.Pledges
	w.engine.Answer = 4 * time.Second // so that some take longer
	if opt.Bug == BreakerDisabled {
		w.engine.BreakerWindow = time.Nanosecond
	}
	w.result.Seed = opt.Seed
	w.large = w.sixth.Float64() < 0.5
	w.plans, w.far = newPlanCheck(w), newFar()
	for i := range opt.lanes() {
		w.lanes = append(w.lanes, newLane(w, i))
	}
	for i := range centers {
		w.power[i] = true
		w.members[i] = &member{w: w, id: i, clock: w.newClock()}
		for _, l := range w.lanes {
			l.sites[i] = newSite(w, l, i)
		}
	}
	w.seedObjects()
	for i := range centers {
		w.members[i].start()
		w.agents(i, (*site).start)
	}
	w.after(0, w.elect)
	return w
}

func sorted[V any](m map[string]V) []string {
	return slices.Sorted(maps.Keys(m))
}
