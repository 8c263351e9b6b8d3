package term

import (
	"time"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// forgetReplica is after how long a replica of an agent that is not heard any more
// is taken for one that no longer runs.
const forgetReplica = 30 * time.Second

// replicas are those of the agents that were heard, and what their programs know.
type replicas map[replica]heardReplica

type replica struct{ cluster, name string }

type heardReplica struct {
	at      time.Duration
	pledges bool

	own   time.Duration // when this member heard it itself
	hears bool          // it did
	seq   uint64        // of the newest heartbeat whose observations are noted
	noted time.Duration // when they came
}

// note takes a heartbeat, which this member heard itself or was told of. What a guard
// says goes for no agent.
func (r replicas) note(cluster string, heartbeat *agentv1.Heartbeat, own bool, now time.Duration) {
	if heartbeat.GetGuard() {
		return
	}
	who := replica{cluster, heartbeat.GetReplica()}
	heard := r[who]
	heard.at, heard.pledges = now, heartbeat.GetPledges()
	if own {
		heard.own, heard.hears = now, true
	}
	r[who] = heard
}

// news is false for a heartbeat whose observations are noted, or newer ones; after late
// a lower number is one of a replica that has started anew.
func (r replicas) news(cluster string, heartbeat *agentv1.Heartbeat, late, now time.Duration) bool {
	who := replica{cluster, heartbeat.GetReplica()}
	heard := r[who]
	if heartbeat.GetSeq() <= heard.seq && now-heard.noted < late {
		return false
	}
	heard.seq, heard.noted = heartbeat.GetSeq(), now
	r[who] = heard
	return true
}

// pledge is true when an agent of cluster is heard and every replica of it knows
// pledges: any of them may be the next active one, which has to honour what the
// one before it promised.
func (r replicas) pledge(cluster string, now time.Duration) bool {
	known := false
	for who, heard := range r {
		switch {
		case who.cluster != cluster:
		case now-heard.at > forgetReplica:
			delete(r, who)
		case !heard.pledges:
			return false
		default:
			known = true
		}
	}
	return known
}

// Pledge is true when every replica of the agent of cluster that is heard knows
// pledges, and one is heard.
func (o *Observations) Pledge(cluster string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.agents.pledge(cluster, o.clock())
}

// Hears is true when this member hears the replica itself, steadily: what others relay
// of it is known here.
func (o *Observations) Hears(cluster, name string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	heard := o.agents[replica{cluster, name}]
	return heard.hears && o.clock()-heard.own < o.late
}
