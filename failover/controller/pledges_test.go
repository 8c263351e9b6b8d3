package controller

import (
	"strings"
	"testing"
	"time"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// With pledges off the engine takes elapsed time for a proof against a primary that
// lives on them.
func TestPledgesCannotBeForgotten(t *testing.T) {
	fleet := &fleet{}
	c := Config{Member: "north-1", Incarnation: func() uint64 { return 1 }, Term: func() uint64 { return 1 }, Applied: func() int64 { return 0 }, HubPledges: func() bool { return true },
		Leases: fleet, Vantages: fleet, Observations: fleet, Directives: fleet, Statuses: throughClient{}, Engine: failover.DefaultConfig(time.Second, 5*time.Second)}
	c.defaults()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	c.Engine.Pledges = false
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "Pledges") {
		t.Fatalf("got %v, want a refusal that names Pledges", err)
	}
}

// An address is used when nobody is left who does not know what it is for, however
// long it has been in the Cluster.
func TestAnAgentIsAskedForPledgesWhenEverybodyKnowsThem(t *testing.T) {
	hub := false
	c := &Controller{cfg: Config{HubPledges: func() bool { return hub }}}
	cl := &v1alpha1.Cluster{Spec: v1alpha1.ClusterSpec{AgentAddress: "192.0.2.1:7443"}}
	for _, step := range []struct {
		name       string
		hub, agent bool
		want       string
	}{
		{name: "nobody is upgraded"},
		{name: "the agents are, and a member of the hub may still be older", agent: true},
		{name: "the hub is, and a replica of the agent may still be older", hub: true},
		{name: "everybody is", hub: true, agent: true, want: "192.0.2.1:7443"},
	} {
		hub = step.hub
		if got := c.agentAddress(cl, Sight{Pledges: step.agent}); got != step.want {
			t.Errorf("%s: the address is %q, want %q", step.name, got, step.want)
		}
	}
}
