package memberagent

import (
	"log/slog"
	"testing"

	"k8s.io/client-go/kubernetes/fake"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

func TestTheLastGrantSurvivesTheAgent(t *testing.T) {
	client := fake.NewClientset()
	grant := func(revision, epoch int64) *agentv1.Grant {
		return &agentv1.Grant{Seq: 7, Incarnation: 1, Term: 2, Revision: revision, TtlMillis: 5000, Roles: []*agentv1.RoleGrant{{
			Dataset: &agentv1.DatasetKey{Namespace: "pay", Name: "db"}, Epoch: epoch, Failsafe: &agentv1.Failsafe{Pledgers: []string{"north-2"}}}}}
	}
	newer, lagging := newLastGrant(client, "tripod-system", slog.Default()), newLastGrant(client, "tripod-system", slog.Default())
	if g, err := newer.load(t.Context()); g != nil || err != nil {
		t.Fatalf("recalled %v, %v from nothing", g, err)
	}
	newer.granted(grant(10, 3))
	if err := newer.write(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The other replica has heard less; what it stores later does not replace it.
	lagging.granted(grant(9, 2))
	if err := lagging.write(t.Context()); err != nil {
		t.Fatal(err)
	}
	g, err := lagging.load(t.Context())
	if err != nil || g.GetRevision() != 10 || g.GetRoles()[0].GetEpoch() != 3 || g.GetTtlMillis() != 5000 || g.GetRoles()[0].GetFailsafe().GetPledgers()[0] != "north-2" {
		t.Errorf("recalled %v, %v", g, err)
	}
	// A revision alone is not worth a write.
	<-newer.changed
	newer.granted(grant(11, 3))
	select {
	case <-newer.changed:
		t.Error("the grant is stored again although its roles are the same")
	default:
	}
}
