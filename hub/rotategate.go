package hub

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"tripod.dev/tripod/hub/identity"
	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

// gate decides what the stage after plan's waits for. It is a pure function of what
// was asked.
type gate struct {
	plan      identity.Plan
	standings map[string]*hubv1.AuthorityStandingResponse
	// silent members, and why.
	silent map[string]string
	// clusters that must have followed, and those (with names of people) that need not.
	clusters, without []string
}

// members are what is waited for among the members: every stage is in force on all of
// them before the next.
func (g gate) members() (waits []string) {
	for _, name := range slices.Sorted(maps.Keys(g.silent)) {
		waits = append(waits, fmt.Sprintf("member %s %s", name, g.silent[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(g.standings)) {
		standing := g.standings[name]
		switch {
		case standing.GetGeneration() < g.plan.Generation:
			waits = append(waits, fmt.Sprintf("member %s has not come to this stage: see its log", name))
		case g.plan.Next != nil && !standing.GetHasNext():
			waits = append(waits, fmt.Sprintf("member %s has not got the key of the new CA: see its log", name))
		}
		if g.plan.Stage != identity.StageServe {
			continue
		}
		for _, ca := range standing.GetShows() {
			if ca != identity.Fingerprint(g.plan.Next) {
				waits = append(waits, fmt.Sprintf("member %s shows a certificate of another CA: %s", name, ca))
			}
		}
	}
	return waits
}

// lost: every member has answered, and nobody has the key of the next CA.
func (g gate) lost() bool {
	for _, standing := range g.standings {
		if standing.GetHasNext() {
			return false
		}
	}
	return len(g.silent) == 0 && g.plan.Next != nil
}

// others are what still chains to the old CA in StageIssue, or does not trust the new
// one: the members show certificates of the new one only when there is nothing left.
func (g gate) others() (waits []string) {
	if g.plan.Stage != identity.StageIssue {
		return nil
	}
	for _, cluster := range g.clusters {
		if slices.Contains(g.without, cluster) {
			continue
		}
		waits = append(waits, g.cluster(cluster)...)
	}
	return append(waits, g.people()...)
}

func (g gate) cluster(cluster string) (waits []string) {
	newest := map[string]*hubv1.AgentStanding{}
	for _, standing := range g.standings {
		for _, agent := range standing.GetAgents() {
			known := newest[agent.GetReplica()]
			if agent.GetCluster() == cluster && (known == nil || agent.GetAgeMillis() < known.GetAgeMillis()) {
				newest[agent.GetReplica()] = agent
			}
		}
	}
	if len(newest) == 0 {
		return []string{fmt.Sprintf("cluster %s: no member hears its agent: wait until it is back, or leave it behind (--without %s): it will need a join token", cluster, cluster)}
	}
	for _, name := range slices.Sorted(maps.Keys(newest)) {
		agent := newest[name]
		switch {
		case !agent.GetKnown():
			waits = append(waits, fmt.Sprintf("cluster %s: its agent %s is of a version that does not follow the hub's CA: upgrade it", cluster, name))
		case agent.GetGeneration() < g.plan.Generation:
			waits = append(waits, fmt.Sprintf("cluster %s: its agent %s does not know the new CA yet", cluster, name))
		default:
			for _, pending := range agent.GetPending() {
				waits = append(waits, fmt.Sprintf("cluster %s: %s", cluster, pending))
			}
		}
	}
	return slices.Compact(waits)
}

// people and tools that have come with a certificate of the old CA in the last day.
func (g gate) people() (waits []string) {
	type use struct {
		name, serial string
		at           int64
	}
	last := map[string]use{}
	for _, standing := range g.standings {
		for _, old := range standing.GetOld() {
			if last[old.GetSerial()].at < old.GetShown() && !slices.Contains(g.without, old.GetName()) {
				last[old.GetSerial()] = use{old.GetName(), old.GetSerial(), old.GetShown()}
			}
		}
	}
	list := slices.SortedFunc(maps.Values(last), func(a, b use) int { return strings.Compare(a.name+a.serial, b.name+b.serial) })
	for _, u := range list {
		waits = append(waits, fmt.Sprintf("%s came with a certificate of the old CA (serial %s) at %s: have its kubeconfig made again, or leave it behind (--without %s)",
			u.name, u.serial, time.Unix(u.at, 0).UTC().Format(time.RFC3339), u.name))
	}
	return waits
}
