package hub

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"tripod.dev/tripod/hub/term"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

// progress is how far each replica of the agents has followed the hub's CAs, as this
// member heard it.
type progress struct {
	clock term.Clock
	mu    sync.Mutex
	heard map[replica]heardProgress
}

type replica struct{ cluster, name string }

type heardProgress struct {
	at   time.Duration
	said *agentv1.AuthorityProgress // nil: an older program
}

// forgetReplica is after how long a replica that is not heard any more is forgotten.
const forgetReplica = 30 * time.Second

func newProgress(clock term.Clock) *progress {
	return &progress{clock: clock, heard: map[replica]heardProgress{}}
}

func (p *progress) note(cluster string, heartbeat *agentv1.Heartbeat) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard[replica{cluster, heartbeat.GetReplica()}] = heardProgress{p.clock(), heartbeat.GetAuthorities()}
}

// list is what was heard in the last half minute.
func (p *progress) list() (list []*hubv1.AgentStanding) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.clock()
	for who, heard := range p.heard {
		age := now - heard.at
		if age > forgetReplica {
			delete(p.heard, who)
			continue
		}
		list = append(list, &hubv1.AgentStanding{
			Cluster: who.cluster, Replica: who.name, Known: heard.said != nil,
			Generation: heard.said.GetGeneration(), Pending: heard.said.GetPending(), AgeMillis: age.Milliseconds(),
		})
	}
	slices.SortFunc(list, func(a, b *hubv1.AgentStanding) int {
		return cmp.Or(cmp.Compare(a.GetCluster(), b.GetCluster()), cmp.Compare(a.GetReplica(), b.GetReplica()))
	})
	return list
}
