package effector

import (
	"testing"
	"time"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

var ledgerKey = key{"pay", "ledger-db"}

func granted(revision, epoch int64, role agentv1.Role) *agentv1.Grant {
	return &agentv1.Grant{Incarnation: 1, Revision: revision, Roles: []*agentv1.RoleGrant{{
		Dataset: &agentv1.DatasetKey{Namespace: "pay", Name: "ledger-db"}, Epoch: epoch, Role: role}}}
}

func TestProof(t *testing.T) {
	now := time.Now()
	promote := func(epoch int64) *agentv1.RoleGrant { return &agentv1.RoleGrant{Epoch: epoch, SyncSet: []string{"a"}} }
	tests := map[string]struct {
		grant     *agentv1.Grant
		promotion *agentv1.RoleGrant
		after     time.Duration
		want      agentv1.Role
		none      bool
	}{
		"the role is the grant's":                                  {grant: granted(1, 1, agentv1.Role_ROLE_PRIMARY), want: agentv1.Role_ROLE_PRIMARY},
		"an ended lease proves nothing":                            {grant: granted(1, 1, agentv1.Role_ROLE_PRIMARY), after: 5 * time.Second, none: true},
		"a directive stands in for the next grant of its epoch":    {grant: granted(1, 2, agentv1.Role_ROLE_REPLICA), promotion: promote(2), want: agentv1.Role_ROLE_PRIMARY},
		"a directive of an earlier epoch came too late":            {grant: granted(1, 3, agentv1.Role_ROLE_REPLICA), promotion: promote(2), want: agentv1.Role_ROLE_REPLICA},
		"a directive of a later epoch waits for its grant":         {grant: granted(1, 1, agentv1.Role_ROLE_REPLICA), promotion: promote(2), want: agentv1.Role_ROLE_REPLICA},
		"a cluster that is being fenced is not made primary by it": {grant: granted(1, 2, agentv1.Role_ROLE_NONE), promotion: promote(2), want: agentv1.Role_ROLE_NONE},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := newGrants()
			g.take(tt.grant, now.Add(4*time.Second))
			if tt.promotion != nil {
				g.promote(ledgerKey, tt.promotion, now)
			}
			p := g.proof(ledgerKey, now.Add(tt.after))
			if (p == nil) != tt.none || p.GetRole().GetRole() != tt.want {
				t.Errorf("got %v, want %v", p, tt.want)
			}
		})
	}
}

func TestAnOlderGrantDoesNotReplaceANewerOne(t *testing.T) {
	now := time.Now()
	g := newGrants()
	g.take(granted(5, 2, agentv1.Role_ROLE_REPLICA), now.Add(2*time.Second))
	if g.take(granted(4, 1, agentv1.Role_ROLE_PRIMARY), now.Add(5*time.Second)) {
		t.Error("a grant of an older revision was taken")
	}
	if p := g.proof(ledgerKey, now); p.GetRole().GetEpoch() != 2 || p.GetRemainingMillis() > 2000 {
		t.Errorf("proof is %v", p)
	}
	if g.take(&agentv1.Grant{Incarnation: 0, Revision: 9}, now.Add(time.Hour)) {
		t.Error("a grant of an older incarnation was taken")
	}
}
