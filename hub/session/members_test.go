package session_test

import (
	"strings"
	"testing"

	"tripod.dev/tripod/hub/session"
	agentsession "tripod.dev/tripod/member-agent/session"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

func TestAnAgentFollowsTheMembersOfTheHub(t *testing.T) {
	f := newFleet(t)
	addresses := make(chan []string, 100)
	all := f.listed()
	two := all[:2]
	f.all.Store(&two)
	r := f.join("north-1", "r1", func(c *agentsession.Config, _ *replica) {
		// Another name of a, and the only member that it was installed with.
		c.Members = []string{strings.Replace(f.address("a"), "127.0.0.1", "localhost", 1)}
		c.Addresses = func(list []string) { addresses <- list }
	})
	eventually(t, "a session with the member that the first one told of", func() bool { return r.sessions.Connected() == 2 })
	f.all.Store(&all)
	eventually(t, "a session with the member that joined", func() bool { return r.sessions.Connected() == 3 })
	one := []session.Member{all[0], all[2]}
	f.all.Store(&one)
	eventually(t, "no session with the member that left", func() bool { return r.sessions.Connected() == 2 })
	r.stop()
	close(addresses)
	var last []string
	for list := range addresses {
		last = list
		for _, address := range list {
			if address == f.address("a") {
				t.Errorf("two addresses of one member are used at once: %v", list)
			}
		}
	}
	if len(last) != 2 || last[1] != f.address("c") {
		t.Errorf("addresses in use: %v", last)
	}
}

func TestAnAgentRemembersTheMembersOverARestart(t *testing.T) {
	f := newFleet(t)
	r := f.join("north-1", "r1", func(c *agentsession.Config, r *replica) {
		c.Members = []string{f.address("a")}
		r.cut[f.address("a")] = true
		c.Told = []*agentv1.HubMember{{Name: "b", Address: f.address("b")}}
	})
	eventually(t, "sessions with b, and with c of whom b tells", func() bool { return r.sessions.Connected() == 2 })
}

func TestASealedHubOnlyListens(t *testing.T) {
	f := newFleet(t)
	f.sealed.Store(true)
	for _, m := range f.members {
		m.incarnation.Store(7)
	}
	r := f.join("north-1", "r1", func(c *agentsession.Config, r *replica) { c.Incarnation = 1; r.active.Store(true) })
	eventually(t, "sessions with all", func() bool { return r.sessions.Connected() == 3 })
	eventually(t, "the view comes in", func() bool { return f.members["a"].saw("north-1/r1 pods") })
	if seen, _ := r.sessions.Seen(); seen != 1 || r.granted() != 0 {
		t.Errorf("the agent has seen incarnation %d and has %d grants of a sealed hub", seen, r.granted())
	}
	r.mu.Lock()
	desired := r.desired
	r.mu.Unlock()
	if desired != 0 {
		t.Errorf("%d desired states of a sealed hub", desired)
	}
	f.sealed.Store(false)
	eventually(t, "grants after the approval", func() bool { return r.granted() > 0 })
	if seen, _ := r.sessions.Seen(); seen != 7 {
		t.Errorf("the agent has seen incarnation %d, want 7", seen)
	}
}
