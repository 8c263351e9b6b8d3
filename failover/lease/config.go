package lease

import (
	"fmt"
	"math"
	"time"
)

// Config holds the times of one fleet. All hub members use the same one and
// tell it to the agents with each session.
type Config struct {
	// Tick is the time between two heartbeats and between two renewals.
	Tick time.Duration
	// TTL is how long a cluster holds its roles after it asked.
	TTL time.Duration
	// GuardMargin is how long before its deadline a guard kills.
	GuardMargin time.Duration
	// Drift (ρ) bounds how far the rate of any clock is from real time: a
	// clock that measures one second saw between 1/(1+ρ) and 1/(1-ρ) of it.
	Drift float64
	// RaftHeartbeat and RaftElection are Raft's timeouts, and RaftLease the
	// time after which a leader that hears no quorum steps down.
	RaftHeartbeat time.Duration
	RaftElection  time.Duration
	RaftLease     time.Duration
}

// LAN is the default profile: centers within a few milliseconds.
func LAN() Config {
	return Config{
		Tick:          time.Second,
		TTL:           5 * time.Second,
		GuardMargin:   500 * time.Millisecond,
		Drift:         0.02,
		RaftHeartbeat: 500 * time.Millisecond,
		RaftElection:  500 * time.Millisecond,
		RaftLease:     250 * time.Millisecond,
	}
}

// WAN is the profile for centers up to about 100 ms apart.
func WAN() Config {
	c := LAN()
	c.Tick *= 2
	c.TTL *= 3
	c.GuardMargin *= 2
	c.RaftHeartbeat *= 4
	c.RaftElection *= 4
	c.RaftLease *= 4
	return c
}

// Validate refuses times under which a lease would be lost to a single late
// tick or to one election (safety.md section 2).
func (c Config) Validate() error {
	switch {
	case c.Tick <= 0:
		return fmt.Errorf("lease tick is %v: must be positive, for instance 1s", c.Tick)
	case c.TTL < 3*c.Tick:
		return fmt.Errorf("lease TTL is %v with a tick of %v: must be at least three ticks, %v", c.TTL, c.Tick, 3*c.Tick)
	case c.RaftElection <= 0 || c.RaftHeartbeat <= 0 || c.RaftLease <= 0:
		return fmt.Errorf("raft timeouts are heartbeat %v, election %v, lease %v: all must be positive", c.RaftHeartbeat, c.RaftElection, c.RaftLease)
	case c.TTL < 2*c.RaftElection:
		return fmt.Errorf("lease TTL is %v with a raft election timeout of %v: must be at least twice that, %v", c.TTL, c.RaftElection, 2*c.RaftElection)
	case c.RaftLease > c.RaftHeartbeat:
		return fmt.Errorf("raft leader lease is %v: must not exceed the raft heartbeat timeout, %v", c.RaftLease, c.RaftHeartbeat)
	case c.GuardMargin <= 0 || c.GuardMargin > c.TTL-2*c.Tick:
		return fmt.Errorf("guard margin is %v: must be positive and leave two ticks of the lease, at most %v", c.GuardMargin, c.TTL-2*c.Tick)
	case c.GuardMargin > c.Tick:
		return fmt.Errorf("guard margin is %v with a tick of %v: must not exceed the tick: pledges are asked for two and a half ticks before a lease ends, and a guard asks for them each tick", c.GuardMargin, c.Tick)
	case math.IsNaN(c.Drift) || c.Drift <= 0 || c.Drift > 0.2:
		return fmt.Errorf("clock drift is %v: must be above 0 and at most 0.2, for instance 0.02", c.Drift)
	}
	return nil
}

// Deadline is when roles end that were asked for at sent, on the asker's clock.
func (c Config) Deadline(sent time.Duration) time.Duration {
	return sent + c.TTL
}

// KillAt is when a guard kills that has a proof until deadline, on its clock.
func (c Config) KillAt(deadline time.Duration) time.Duration {
	return deadline - c.GuardMargin
}

// OverAfter is how long after it applied a renewal a hub member waits, on its
// own clock, until the lease is surely over.
//
// The agent's TTL takes at most TTL/(1-ρ) of real time and a wait of w takes at
// least w/(1+ρ), so w must be TTL×(1+ρ)/(1-ρ). That is TTL×(1+2ρ) of safety.md
// to first order and never less than it: at ρ = 2 % and a TTL of 5 s the first
// order alone is 4 ms too short when both clocks are at their worst.
func (c Config) OverAfter() time.Duration {
	return time.Duration(math.Ceil(float64(c.TTL)*(1+c.Drift)/(1-c.Drift))) + 1
}
