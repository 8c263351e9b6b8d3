// Package redial says when to dial a hub member again, so that a fleet of agents that
// lost the same member at the same moment comes back one after the other and not at
// once.
package redial

import (
	"math"
	"math/rand/v2"
	"time"
)

// Outcome is how an attempt to hold a connection ended.
type Outcome int

const (
	// Lost: it was open, and is not any more.
	Lost Outcome = iota
	// Unreachable: nobody took the connection. Trying costs next to nothing, so it goes
	// on often.
	Unreachable
	// Refused: somebody took it, and it was not opened: no handshake, another protocol, a
	// refusal. It cost the member a handshake, so the waits grow longer.
	Refused
)

// Reach is how long to wait for a member to take a connection: long enough for a lost
// packet to be sent again, short enough to be there when a member that was without
// power comes back.
const Reach = 2 * time.Second

const (
	// growth of the longest wait from one failure to the next of its kind.
	growth = 1.7
	// refused is how many times longer than Max the wait after refusals grows.
	refused = 3
)

// Config bounds the waits.
type Config struct {
	// Min is about the shortest wait: for an agent that has no other member.
	Min time.Duration
	// Max is the longest wait while a member cannot be reached; so all agents have
	// tried within Max of its return. First attempts after a loss are spread over half
	// of it.
	Max time.Duration
}

// Pace is the waits of one link. It is for one goroutine.
type Pace struct {
	config Config
	random func() float64 // of [0, 1)
	last   Outcome
	streak int // of last
}

// New paces a link that was not dialled yet.
func New(config Config) *Pace { return &Pace{config: config, random: rand.Float64} }

// After is the wait before the next attempt. An agent with others, open connections to
// other members, can wait after a loss: it takes its place in the whole spread. One
// without hurries. Failures are followed by the second half of a wait that grows, so
// that agents which began together drift apart.
func (p *Pace) After(outcome Outcome, others bool) time.Duration {
	if outcome != p.last {
		p.last, p.streak = outcome, 0
	}
	p.streak++
	switch {
	case outcome == Lost && others:
		return p.config.Min + p.part(p.config.Max/2)
	case outcome == Lost:
		return p.config.Min + p.part(p.config.Min/2)
	}
	longest := float64(p.config.Max)
	if outcome == Refused {
		longest *= refused
	}
	wait := time.Duration(min(longest, float64(p.config.Min)*math.Pow(growth, float64(p.streak))))
	return wait/2 + p.part(wait/2)
}

// part is some part of d, all equally likely.
func (p *Pace) part(d time.Duration) time.Duration { return time.Duration(p.random() * float64(d)) }
