package session_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	agentsession "tripod.dev/tripod/member-agent/session"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// TestObservationsReachEveryMemberOnceAndTheLeaderAlways: every member hears all of them
// from the agent; the leader is told by others only what it does not hear itself.
func TestObservationsReachEveryMemberOnceAndTheLeaderAlways(t *testing.T) {
	f := newFleet(t)
	var state atomic.Int64
	r := f.join("north-1", "r1", func(c *agentsession.Config, r *replica) { c.Heartbeat = observing(&state) })
	whole := func(name string) bool {
		m := f.members[name]
		m.mu.Lock()
		defer m.mu.Unlock()
		return saysAll(m.own, state.Load()) && len(m.own.GetAgesMillis()) == 3
	}
	relayed := func(through string) *agentv1.Heartbeat {
		a := f.members["a"]
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.told[through]
	}
	for range 3 {
		state.Add(1)
		eventually(t, "every member hears all observations", func() bool { return whole("a") && whole("b") && whole("c") })
	}
	for _, name := range []string{"a", "b", "c"} {
		eventually(t, name+" tells the leader nothing that it hears itself", func() bool {
			h := relayed(name)
			return h != nil && h.GetActive() && len(h.GetDatasets()) == 0
		})
	}

	r.cutOff(f.address("a"))
	state.Add(1)
	eventually(t, "the others tell the leader all that it does not hear", func() bool {
		h := relayed("b")
		return saysAll(h, state.Load()) && h.GetDatasets()[2].GetAgeMillis() >= 30 && len(h.GetAgesMillis()) == 0
	})

	f.crown("b")
	state.Add(1)
	eventually(t, "a new leader that hears it is told no more by the others", func() bool {
		b := f.members["b"]
		b.mu.Lock()
		defer b.mu.Unlock()
		h := b.told["c"]
		return saysAll(b.own, state.Load()) && h != nil && len(h.GetDatasets()) == 0
	})
}

// observing is an agent with three copies, of which the second changes with state.
func observing(state *atomic.Int64) func() *agentv1.Heartbeat {
	copy := func(i int, state string) *agentv1.DatasetObservation {
		return &agentv1.DatasetObservation{Dataset: &agentv1.DatasetKey{Namespace: "pay", Name: fmt.Sprint("set-", i)}, State: state}
	}
	all := []*agentv1.DatasetObservation{copy(0, "Running"), nil, copy(2, "Running")}
	return func() *agentv1.Heartbeat {
		if now := fmt.Sprint("state-", state.Load()); all[1].GetState() != now {
			all = []*agentv1.DatasetObservation{all[0], copy(1, now), all[2]}
		}
		return &agentv1.Heartbeat{Active: true, Observable: true, Datasets: all, AgesMillis: []int64{10, 20, 30}}
	}
}

func saysAll(h *agentv1.Heartbeat, state int64) bool {
	all := h.GetDatasets()
	return len(all) == 3 && all[0].GetState() == "Running" && all[1].GetState() == fmt.Sprint("state-", state) && all[2].GetDataset().GetName() == "set-2"
}
