package redial

import (
	"math/rand/v2"
	"testing"
	"time"
)

func config() Config { return Config{Min: 200 * time.Millisecond, Max: 2 * time.Second} }

// agents are paces with random sources of their own, the same in every run.
func agents(n int) []*Pace {
	source := rand.New(rand.NewPCG(1, 2))
	all := make([]*Pace, n)
	for i := range all {
		all[i] = &Pace{config: config(), random: source.Float64}
	}
	return all
}

// busiest is the most of times that fall within one window of the width.
func busiest(times []time.Duration, width time.Duration) int {
	most := 0
	for _, from := range times {
		n := 0
		for _, at := range times {
			if at >= from && at < from+width {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

func TestAgentsThatLoseAMemberTogetherComeBackOneByOne(t *testing.T) {
	var first []time.Duration
	for _, pace := range agents(1000) {
		wait := pace.After(Lost, true)
		if wait < config().Min || wait >= config().Min+config().Max/2 {
			t.Fatalf("a wait of %v", wait)
		}
		first = append(first, wait)
	}
	// A thousand over a second are ten in 10 ms; chance makes twice as many of the
	// busiest, a herd would make a hundred or more.
	if n := busiest(first, 10*time.Millisecond); n > 25 {
		t.Errorf("%d of 1000 agents dial within 10 ms", n)
	}
}

func TestAnAgentWithoutAnyMemberHurries(t *testing.T) {
	for _, pace := range agents(1000) {
		if wait := pace.After(Lost, false); wait < config().Min || wait > config().Min*3/2 {
			t.Fatalf("a wait of %v", wait)
		}
	}
}

// A member is away for as long as it takes the waits to grow, and comes back.
func TestAllHaveTriedSoonAfterAMembersReturn(t *testing.T) {
	const away = 30 * time.Second
	var after []time.Duration
	for _, pace := range agents(1000) {
		at := pace.After(Lost, true)
		for at < away {
			at += pace.After(Unreachable, true)
		}
		after = append(after, at-away)
	}
	for _, wait := range after {
		if wait > config().Max {
			t.Fatalf("an agent tries only %v after the return", wait)
		}
	}
	// A thousand over one and a half seconds are seven in 10 ms.
	if n := busiest(after, 10*time.Millisecond); n > 22 {
		t.Errorf("%d of 1000 agents dial within 10 ms", n)
	}
}

// A network comes back that was away for all: they began together, and drift apart.
func TestAgentsThatBeganTogetherDriftApart(t *testing.T) {
	const away = 30 * time.Second
	var after []time.Duration
	for _, pace := range agents(1000) {
		at := time.Duration(0)
		for at < away {
			at += pace.After(Unreachable, false)
		}
		after = append(after, at-away)
	}
	if n := busiest(after, 10*time.Millisecond); n > 30 {
		t.Errorf("%d of 1000 agents dial within 10 ms", n)
	}
}

func TestWaitsAfterRefusalsGrowLonger(t *testing.T) {
	for _, pace := range agents(100) {
		for range 20 {
			pace.After(Refused, true)
		}
		if wait := pace.After(Refused, true); wait < 3*config().Max/2 || wait > 3*config().Max {
			t.Fatalf("a wait of %v after twenty refusals", wait)
		}
		if wait := pace.After(Unreachable, true); wait > config().Min*2 {
			t.Fatalf("a wait of %v after the first attempt that found nobody", wait)
		}
		for range 20 {
			pace.After(Unreachable, true)
		}
		if wait := pace.After(Unreachable, true); wait < config().Max/2 || wait > config().Max {
			t.Fatalf("a wait of %v while nobody is there", wait)
		}
	}
}
