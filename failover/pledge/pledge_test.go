package pledge

import (
	"cmp"
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tripod.dev/tripod/failover/lease"
)

const db = "pay/db"

func TestNeeded(t *testing.T) {
	for name, tc := range map[string]struct{ granted, waits, want []string }{
		"the primary does not pledge to itself":               {[]string{"a", "b"}, []string{"a"}, []string{"b"}},
		"whom the copy waits for is needed before it is told": {[]string{"b"}, []string{"c"}, []string{"b", "c"}},
		"nobody is asked twice":                               {[]string{"c", "b"}, []string{"b"}, []string{"b", "c"}},
		"and there may be nobody":                             {[]string{"a"}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Needed("a", tc.granted, tc.waits); !slices.Equal(got, tc.want) {
				t.Errorf("needed %v, want %v", got, tc.want)
			}
		})
	}
}

func TestCollector(t *testing.T) {
	c := lease.LAN()
	role := func(epoch int64, pledgers ...string) Role {
		return Role{Incarnation: 2, Epoch: epoch, Pledgers: pledgers}
	}
	for name, tc := range map[string]struct {
		do   func(*Collector)
		want time.Duration // 0: none
	}{
		"without a pledge there is nothing": {func(k *Collector) { k.Hold(role(3, "b")); k.Ask(time.Second) }, 0},
		"a role without pledgers ends with its lease": {func(k *Collector) {
			k.Hold(role(3))
			k.Answer("b", k.Ask(time.Second), 2, 3)
		}, 0},
		"a pledge counts from the question": {func(k *Collector) {
			k.Hold(role(3, "b"))
			k.Answer("b", k.Ask(time.Second), 2, 3)
		}, time.Second + c.TTL},
		"one of two is missing": {func(k *Collector) {
			k.Hold(role(3, "b", "c"))
			k.Answer("b", k.Ask(time.Second), 2, 3)
		}, 0},
		"the older of two pledges decides": {func(k *Collector) {
			k.Hold(role(3, "b", "c"))
			first := k.Ask(time.Second)
			k.Answer("b", k.Ask(2*time.Second), 2, 3)
			k.Answer("c", first, 2, 3)
		}, time.Second + c.TTL},
		"an older answer does not shorten": {func(k *Collector) {
			k.Hold(role(3, "b"))
			first := k.Ask(time.Second)
			k.Answer("b", k.Ask(2*time.Second), 2, 3)
			k.Answer("b", first, 2, 3)
		}, 2*time.Second + c.TTL},
		"an answer to no question is nothing":     {func(k *Collector) { k.Hold(role(3, "b")); k.Answer("b", 7, 2, 3) }, 0},
		"nor is one for another epoch":            {func(k *Collector) { k.Hold(role(3, "b")); k.Answer("b", k.Ask(1), 2, 2) }, 0},
		"nor one for another incarnation":         {func(k *Collector) { k.Hold(role(3, "b")); k.Answer("b", k.Ask(1), 1, 3) }, 0},
		"nor one from somebody else":              {func(k *Collector) { k.Hold(role(3, "b")); k.Answer("c", k.Ask(1), 2, 3) }, 0},
		"pledges do not go over to another epoch": {func(k *Collector) { k.Hold(role(3, "b")); k.Answer("b", k.Ask(1), 2, 3); k.Hold(role(4, "b")) }, 0},
		"nor does an answer that comes late": {func(k *Collector) {
			k.Hold(role(3, "b"))
			seq := k.Ask(1)
			k.Hold(role(4, "b"))
			k.Answer("b", seq, 2, 4)
		}, 0},
		"a role that is taken away is not kept": {func(k *Collector) { k.Hold(role(3, "b")); k.Answer("b", k.Ask(1), 2, 3); k.Lose() }, 0},
		"a pledger that is added is needed at once": {func(k *Collector) {
			k.Hold(role(3, "b"))
			k.Answer("b", k.Ask(1), 2, 3)
			k.Hold(role(3, "b", "c"))
		}, 0},
		"one that is no longer needed is not": {func(k *Collector) {
			k.Hold(role(3, "b", "c"))
			k.Answer("b", k.Ask(time.Second), 2, 3)
			k.Hold(role(3, "b"))
		}, time.Second + c.TTL},
	} {
		t.Run(name, func(t *testing.T) {
			k := NewCollector(c)
			tc.do(k)
			if got, ok := k.Deadline(); got != tc.want && ok || ok != (tc.want != 0) {
				t.Errorf("deadline %v %v, want %v", got, ok, tc.want)
			}
		})
	}
}

func TestPledgersAreAskedInTimeAndNotBefore(t *testing.T) {
	c := lease.LAN()
	k := NewCollector(c)
	k.Hold(Role{Incarnation: 1, Epoch: 1, Pledgers: []string{"b"}})
	ends := 10*time.Second + c.TTL // asked at 10 s
	if k.Due(ends, ends-2500*time.Millisecond-1) || !k.Due(ends, ends-2500*time.Millisecond) {
		t.Error("pledgers are asked two and a half ticks before the lease ends")
	}
	if k.Lose(); k.Due(ends, time.Hour) {
		t.Error("nothing is asked for a role that is not held")
	}
}

func TestBook(t *testing.T) {
	c := lease.LAN()
	over := c.OverAfter()
	at := over + time.Second // the start is over
	ask := func(incarnation uint64, epoch int64) Request { return Request{incarnation, epoch, c.TTL} }
	for name, tc := range map[string]struct {
		before func(*Book)
		ask    Request
		want   Verdict
		free   time.Duration
	}{
		"a pledge runs for a TTL and the drift":               {func(*Book) {}, ask(2, 3), Pledged, at + over},
		"a newer epoch was seen":                              {func(b *Book) { b.Saw(db, 4) }, ask(2, 3), RefusedEpoch, over},
		"the same epoch was seen":                             {func(b *Book) { b.Saw(db, 3) }, ask(2, 3), Pledged, at + over},
		"another dataset's epoch says nothing":                {func(b *Book) { b.Saw("pay/other", 4) }, ask(2, 3), Pledged, at + over},
		"an older epoch does not make the newer one unseen":   {func(b *Book) { b.Saw(db, 4); b.Saw(db, 2) }, ask(2, 3), RefusedEpoch, over},
		"a newer hub has granted":                             {func(b *Book) { b.Granted(3) }, ask(2, 3), RefusedIncarnation, over},
		"a newer hub's primary asks":                          {func(b *Book) { b.Granted(1) }, ask(2, 3), Pledged, at + over},
		"a primary that counts longer is refused":             {func(*Book) {}, Request{2, 3, c.TTL + 1}, RefusedLong, over},
		"a refusal takes no pledge back":                      {func(b *Book) { b.Ask(db, ask(2, 3), at); b.Saw(db, 4) }, ask(2, 3), RefusedEpoch, at + over},
		"an epoch that was seen does not end a pledge either": {func(b *Book) { b.Ask(db, ask(2, 3), at); b.Saw(db, 9) }, ask(2, 9), Pledged, at + over},
	} {
		t.Run(name, func(t *testing.T) {
			b := NewBook(c, 0)
			tc.before(b)
			if got := b.Ask(db, tc.ask, at); got != tc.want {
				t.Errorf("%v, want %v", got, tc.want)
			}
			if got := b.FreeAt(db); got != tc.free {
				t.Errorf("free at %v, want %v", got, tc.free)
			}
		})
	}
	if b := NewBook(c, time.Second); b.Free(db, time.Second+over-1) || !b.Free(db, time.Second+over) {
		t.Error("one that has just become active counts a pledge from its start")
	}
}

// clock maps real time to what a process reads, at a rate within the drift.
type clock struct {
	rate   float64
	origin time.Duration
}

func (c clock) at(real time.Duration) time.Duration {
	return c.origin + time.Duration(float64(real)*c.rate)
}

func (c clock) realOf(local time.Duration) time.Duration {
	return time.Duration(float64(local-c.origin) / c.rate)
}

func drawClock(t *rapid.T, drift float64, name string) clock {
	rate := rapid.OneOf(
		rapid.SampledFrom([]float64{1 - drift, 1, 1 + drift}),
		rapid.Float64Range(1-drift, 1+drift),
	).Draw(t, name+" rate")
	return clock{rate: rate, origin: time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, name+" origin"))}
}

// mistake is one that the property must find.
type mistake int

const (
	none mistake = iota
	fromTheAnswer
	promotionDuringPledge
	missingTolerated
	waitWithoutDrift
	startNotCounted
	pledgeAfterNewEpoch
)

// pledger is one member in real time: it restarts once, and sees the newer
// epoch once.
type pledger struct {
	name             string
	clock            clock
	before, after    *Book
	restarts, learns time.Duration
	learned          bool
	accepts          time.Duration
}

func (p *pledger) book(real time.Duration) *Book {
	if real < p.restarts {
		return p.before
	}
	return p.after
}

// asked delivers a question at a real time; questions come in order.
func (p *pledger) asked(c lease.Config, real time.Duration, m mistake) bool {
	if real >= p.learns {
		p.learn(c, m)
		if m != pledgeAfterNewEpoch {
			p.book(real).Saw(db, 2)
		}
	}
	return p.book(real).Ask(db, Request{1, 1, c.TTL}, p.clock.at(real)) == Pledged
}

// learn notes the first real time at which it may be promoted at the new epoch,
// from what it has promised when it learns of that.
func (p *pledger) learn(c lease.Config, m mistake) {
	if p.learned {
		return
	}
	p.learned = true
	b := p.book(p.learns)
	free := b.FreeAt(db)
	switch m {
	case promotionDuringPledge:
		free = 0
	case waitWithoutDrift:
		free += c.TTL - c.OverAfter()
	case startNotCounted:
		free = b.promise(db).until
	}
	p.accepts = max(p.learns, p.clock.realOf(free))
}

// question is one on its way to one pledger and back.
type question struct {
	to          *pledger
	seq         uint64
	there, back time.Duration
}

func checkPledges(t *rapid.T, m mistake) {
	c := rapid.SampledFrom([]lease.Config{lease.LAN(), lease.WAN()}).Draw(t, "profile")
	primary := drawClock(t, c.Drift, "primary")
	collector := NewCollector(c)
	upTo := func(d time.Duration, label string) time.Duration {
		return time.Duration(rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(0, int64(d))).Draw(t, label))
	}
	var pledgers []*pledger
	var names []string
	for i := range rapid.IntRange(1, 3).Draw(t, "pledgers") {
		p := &pledger{name: fmt.Sprint("p", i), clock: drawClock(t, c.Drift, "pledger")}
		p.restarts, p.learns = upTo(6*c.TTL, "restarts"), upTo(6*c.TTL, "learns")
		p.before, p.after = NewBook(c, p.clock.at(0)), NewBook(c, p.clock.at(p.restarts))
		pledgers, names = append(pledgers, p), append(names, p.name)
	}
	if m == missingTolerated {
		collector.Hold(Role{1, 1, names[:max(1, len(names)-1)]})
	} else {
		collector.Hold(Role{1, 1, names})
	}
	var questions []question
	real := time.Duration(0)
	for range rapid.IntRange(1, 8).Draw(t, "questions") {
		real += upTo(2*c.Tick, "gap")
		seq := collector.Ask(primary.at(real))
		for _, p := range pledgers {
			there := real + upTo(2*c.TTL, "there")
			if rapid.IntRange(0, 9).Draw(t, "lost") != 0 {
				questions = append(questions, question{p, seq, there, there + upTo(2*c.TTL, "back")})
			}
		}
	}
	slices.SortStableFunc(questions, func(a, b question) int { return cmp.Compare(a.there, b.there) })
	held := time.Duration(-1)
	for _, q := range questions {
		if !q.to.asked(c, q.there, m) {
			continue
		}
		if m == fromTheAnswer {
			collector.asked[q.seq] = primary.at(q.back)
		}
		collector.Answer(q.to.name, q.seq, 1, 1)
		if ends, ok := collector.Deadline(); ok {
			held = max(held, primary.realOf(ends))
		}
	}
	// The first of them that accepts: a pledger, or somebody else after all of
	// them have acknowledged, which is later.
	for _, p := range pledgers {
		p.learn(c, m)
		if held >= 0 && p.accepts+1 < held {
			t.Fatalf("%s accepts a promotion at %v, but pledges keep the primary until %v", p.name, p.accepts, held)
		}
	}
}

func TestNobodyAcceptsAPromotionWhilePledgesKeepThePrimary(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { checkPledges(t, none) })
}

// TestThePropertyCanFail plants the mistakes that the property exists for.
func TestThePropertyCanFail(t *testing.T) {
	// The failures below are wanted: none is to be kept for replay.
	if err := flag.Set("rapid.nofailfile", "true"); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = flag.Set("rapid.nofailfile", "false") }()
	if err := flag.Set("rapid.checks", "20000"); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = flag.Set("rapid.checks", "100") }()
	for name, m := range map[string]mistake{
		"counting from the answer":                        fromTheAnswer,
		"accepting a promotion while a pledge runs":       promotionDuringPledge,
		"tolerating a pledger that is missing":            missingTolerated,
		"a wait without drift":                            waitWithoutDrift,
		"a start that is not counted":                     startNotCounted,
		"a pledge for an epoch that is known to be older": pledgeAfterNewEpoch,
	} {
		t.Run(name, func(t *testing.T) {
			if !fails(func() { rapid.Check(quiet{t}, func(t *rapid.T) { checkPledges(t, m) }) }) {
				t.Fatal("the planted mistake was not found")
			}
		})
	}
}

// quiet turns rapid's failure into a panic that fails can see.
type quiet struct{ *testing.T }

type found struct{}

func (quiet) Errorf(string, ...any) { panic(found{}) }
func (quiet) Fatalf(string, ...any) { panic(found{}) }
func (quiet) FailNow()              { panic(found{}) }
func (quiet) Logf(string, ...any)   {}
func (quiet) Helper()               {}
func (quiet) Name() string          { return "planted" }

func fails(f func()) (failed bool) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(found); !ok {
				panic(r)
			}
			failed = true
		}
	}()
	f()
	return false
}
