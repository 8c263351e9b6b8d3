package effector

import (
	"testing"
	"testing/synctest"
	"time"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// A guard that stands still kills nobody. It is told before the lease of a primary
// that is being fenced is over, because the end of a lease proves nothing without it.
func TestAGuardThatStandsStillEnforcesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lease, tick = 5 * time.Second, time.Second
		l := newLinks(&Effector{cfg: Config{Pledges: noPledges{}}})
		n := &link{}
		l.add(ledgerKey, n)
		l.hear(ledgerKey, n, &agentv1.GuardStatus{Init: true, Enforcing: true})
		for _, tt := range []struct {
			after                time.Duration
			connected, enforcing bool
		}{
			{2 * tick, true, true},
			{lease - 2*tick, true, false}, // the next heartbeat tells the hub
			{silence + tick, false, false},
		} {
			n.mu.Lock()
			heard := n.heard
			n.mu.Unlock()
			<-time.After(time.Until(heard.Add(tt.after))) // the bubble's clock
			status, _, connected := l.Host("pay", "ledger-db").Status()
			if connected != tt.connected || status.GetEnforcing() != tt.enforcing {
				t.Errorf("after %v: connected %t, enforcing %t, want %t, %t", tt.after, connected, status.GetEnforcing(), tt.connected, tt.enforcing)
			}
		}
		l.hear(ledgerKey, n, &agentv1.GuardStatus{Init: true, Enforcing: true})
		if status, _, _ := l.Host("pay", "ledger-db").Status(); !status.GetEnforcing() {
			t.Error("a guard that asks again does not count")
		}
	})
}
