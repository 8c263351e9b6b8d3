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
}

// note takes a heartbeat. What a guard says goes for no agent.
func (r replicas) note(cluster string, heartbeat *agentv1.Heartbeat, now time.Duration) {
	if heartbeat.GetGuard() {
		return
	}
	r[replica{cluster, heartbeat.GetReplica()}] = heardReplica{now, heartbeat.GetPledges()}
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
