package controller

import (
	"strings"
	"testing"
	"time"

	"tripod.dev/tripod/failover"
)

// With pledges off the engine takes elapsed time for a proof against a primary that
// lives on them.
func TestPledgesCannotBeForgotten(t *testing.T) {
	fleet := &fleet{}
	c := Config{Member: "north-1", Incarnation: func() uint64 { return 1 }, Term: func() uint64 { return 1 }, Applied: func() int64 { return 0 },
		Leases: fleet, Vantages: fleet, Observations: fleet, Directives: fleet, Engine: failover.DefaultConfig(time.Second, 5*time.Second)}
	c.defaults()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	c.Engine.Pledges = false
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "Pledges") {
		t.Fatalf("got %v, want a refusal that names Pledges", err)
	}
}
