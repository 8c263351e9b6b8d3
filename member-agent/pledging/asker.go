package pledging

import (
	"slices"
	"sync"
	"time"

	"tripod.dev/tripod/failover/lease"
	"tripod.dev/tripod/failover/pledge"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// asker is the side of the primaries. It is safe for concurrent use.
type asker struct {
	config Config

	mu        sync.Mutex
	times     lease.Config
	leaseEnds time.Duration
	roles     map[string]*holding
}

// holding is one primary role that pledges may keep.
type holding struct {
	dataset   *agentv1.DatasetKey
	collector *pledge.Collector
	role      pledge.Role
	granted   []string
	addresses map[string]string
	// known is true when the guard has said whom the copy surely waits for.
	known bool
	// missing are those that did not answer the last question or probe.
	missing map[string]string
}

// question is one round to one cluster: its roles, and the number of the question
// for each.
type question struct {
	cluster, address string
	request          *agentv1.PledgeRequest
	holdings         []*holding
	seqs             []uint64
}

func newAsker(c Config) *asker {
	return &asker{config: c, times: c.Lease, roles: map[string]*holding{}}
}

// granted replaces the roles by those of the newest grant, whose lease ends in
// remaining.
func (a *asker) granted(g *agentv1.Grant, remaining time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if ttl := time.Duration(g.GetTtlMillis()) * time.Millisecond; ttl > 0 && ttl != a.times.TTL {
		// The tick is not told; two of these are what a lease surely outlasts.
		a.times.TTL, a.times.Tick = ttl, ttl/5
		clear(a.roles)
	}
	a.leaseEnds = a.config.Clock() + remaining
	held := map[string]*holding{}
	for _, role := range g.GetRoles() {
		if role.GetRole() != agentv1.Role_ROLE_PRIMARY || role.GetFailsafe() == nil {
			continue
		}
		key := keyOf(role.GetDataset())
		h := a.roles[key]
		if h == nil {
			h = &holding{dataset: role.GetDataset(), collector: pledge.NewCollector(a.times), missing: map[string]string{}}
		}
		if h.role.Epoch != role.GetEpoch() || h.role.Incarnation != g.GetIncarnation() {
			h.known = false
		}
		h.granted, h.addresses = role.GetFailsafe().GetPledgers(), map[string]string{}
		for _, peer := range role.GetPeers() {
			h.addresses[peer.GetCluster()] = peer.GetAgentAddress()
		}
		h.role.Incarnation, h.role.Epoch = g.GetIncarnation(), role.GetEpoch()
		held[key] = h
	}
	a.roles = held
}

// kept is for how much longer pledges keep a role whose copy surely waits for
// waits; 0 if they do not. They are good for a proof that answers a question which
// told these waits, and for no other.
func (a *asker) kept(dataset string, epoch int64, waits []string) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := a.roles[dataset]
	if h == nil || h.role.Epoch != epoch {
		return 0
	}
	h.known = true
	h.role.Pledgers = pledge.Needed(a.config.Cluster, h.granted, waits)
	h.collector.Hold(h.role)
	ends, ok := h.collector.Deadline()
	if !ok {
		return 0
	}
	return max(0, ends-a.config.Clock())
}

// due numbers the questions that are to be asked now, one for each cluster. Where
// nothing is due yet the request names no role: it only shows whether the cluster
// would answer, when probe is set.
func (a *asker) due(probe bool) []question {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.config.Clock()
	by := map[string]*question{}
	for _, h := range a.roles {
		asking := h.known && h.collector.Due(a.leaseEnds, now)
		if !h.known || !asking && !probe {
			continue
		}
		seq := uint64(0)
		if asking {
			seq = h.collector.Ask(now)
		}
		for _, cluster := range h.role.Pledgers {
			if h.addresses[cluster] == "" {
				h.missing[cluster] = "no agentAddress in its Cluster"
				continue
			}
			q := by[cluster]
			if q == nil {
				q = &question{cluster: cluster, address: h.addresses[cluster], request: &agentv1.PledgeRequest{TtlMillis: a.times.TTL.Milliseconds()}}
				by[cluster] = q
			}
			if asking {
				q.request.Roles = append(q.request.Roles, &agentv1.PledgedRole{Dataset: h.dataset, Incarnation: h.role.Incarnation, Epoch: h.role.Epoch})
				q.holdings, q.seqs = append(q.holdings, h), append(q.seqs, seq)
			}
		}
	}
	questions := make([]question, 0, len(by))
	for _, q := range by {
		questions = append(questions, *q)
	}
	return questions
}

// endpoints are where the agents are that may be asked.
func (a *asker) endpoints() map[endpoint]bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := map[endpoint]bool{}
	for _, h := range a.roles {
		for _, cluster := range h.role.Pledgers {
			all[endpoint{cluster, h.addresses[cluster]}] = true
		}
	}
	return all
}

// answered takes what came of a question.
func (a *asker) answered(q question, response *agentv1.PledgeResponse, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, h := range a.roles {
		if !slices.Contains(h.role.Pledgers, q.cluster) {
			continue
		}
		delete(h.missing, q.cluster)
		if err != nil {
			h.missing[q.cluster] = err.Error()
		}
	}
	for i, answer := range response.GetAnswers() {
		if i >= len(q.holdings) {
			return
		}
		h, role := q.holdings[i], q.request.GetRoles()[i]
		if !answer.GetPledged() {
			h.missing[q.cluster] = answer.GetReason()
			continue
		}
		h.collector.Answer(q.cluster, q.seqs[i], role.GetIncarnation(), role.GetEpoch())
	}
}

// pledgers are whose pledge a primary of this cluster needs, and those of them
// that did not answer last; ok is false for what is no such primary.
func (a *asker) pledgers(dataset string) (needed, missing []string, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := a.roles[dataset]
	if h == nil || !h.known {
		return nil, nil, false
	}
	for _, name := range h.role.Pledgers {
		if h.missing[name] != "" {
			missing = append(missing, name)
		}
	}
	return slices.Clone(h.role.Pledgers), missing, true
}

// reasons are why pledges are missing, for the log.
func (a *asker) reasons() map[string]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	reasons := map[string]string{}
	for dataset, h := range a.roles {
		for _, name := range h.role.Pledgers {
			if why := h.missing[name]; why != "" {
				reasons[dataset+" "+name] = why
			}
		}
	}
	return reasons
}
