package term

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"google.golang.org/protobuf/proto"

	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/proto/agent/delta"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// Roles are what datasets give to each cluster.
func Roles(datasets []*v1alpha1.Dataset, terms Terms) map[string][]*agentv1.RoleGrant {
	var l roleLedger
	l.advance(datasets, terms)
	all := map[string][]*agentv1.RoleGrant{}
	for cluster := range l.table.clusters {
		all[cluster] = l.table.Roles(cluster)
	}
	return all
}

// TestDifferencesAddUpToTheWhole: whatever happens to the datasets, and whichever
// grants an agent misses or has twice, those that it takes give it what the whole table
// gives.
func TestDifferencesAddUpToTheWhole(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		var ledger roleLedger
		var agent delta.Roles
		terms, places := Terms{Pledgers: func(p []Place, _ *v1alpha1.Dataset) []string { return []string{p[0].AgentAddress} }}, 0
		datasets := map[int]*v1alpha1.Dataset{}
		differences, revision, term := 0, int64(0), uint64(1)
		var last *agentv1.Grant
		for step := range 300 {
			for range r.IntN(4) {
				change(r, datasets)
			}
			if r.IntN(20) == 0 {
				places++
			}
			if r.IntN(40) == 0 {
				term, ledger = term+1, roleLedger{} // another member leads, which has counted for itself
			}
			terms.Places = []Place{{"north-1", "north", fmt.Sprint("address-", places)}}
			ledger.advance(inOrder(datasets), terms)
			revision++
			table := ledger.table
			table.Revision = revision
			g := &agentv1.Grant{Incarnation: 1, Term: term, Revision: revision}
			table.grant(g, "north-1", agent.Held())
			if r.IntN(3) == 0 {
				continue // lost on its way
			}
			if g.GetSince() > 0 {
				differences++
			}
			whole, err := agent.Take(proto.CloneOf(g))
			if err != nil {
				t.Fatalf("seed %d step %d: %v", seed, step, err)
			}
			same(t, fmt.Sprintf("seed %d step %d", seed, step), whole.GetRoles(), table.Roles("north-1"))
			if last != nil && r.IntN(3) == 0 && last.GetTerm() == term && last.GetSince() > 0 { // a late one, which its stamp would not have refused
				if whole, err = agent.Take(last); err != nil {
					t.Fatalf("seed %d step %d, the grant before: %v", seed, step, err)
				}
				same(t, fmt.Sprintf("seed %d step %d after the grant before", seed, step), whole.GetRoles(), table.Roles("north-1"))
			}
			last = g
		}
		if differences < 100 {
			t.Fatalf("seed %d: only %d grants were differences", seed, differences)
		}
	}
}

// change makes, alters or takes away one dataset.
func change(r *rand.Rand, datasets map[int]*v1alpha1.Dataset) {
	n := r.IntN(20)
	if datasets[n] != nil && r.IntN(4) == 0 {
		delete(datasets, n)
		return
	}
	d := dataset(v1alpha1.DatasetSteady, "north-1", "", int64(1+r.IntN(2)))
	if r.IntN(2) == 0 {
		d = dataset(v1alpha1.DatasetSteady, "north-2", "north-1", int64(1+r.IntN(2)))
	}
	d.Status.Failsafe = r.IntN(2) == 0
	d.Name = fmt.Sprintf("ledger-%02d", n)
	datasets[n] = d
}

func inOrder(datasets map[int]*v1alpha1.Dataset) (all []*v1alpha1.Dataset) {
	for n := range 20 {
		if d := datasets[n]; d != nil {
			all = append(all, d)
		}
	}
	return all
}

// same fails the test unless both have the same roles, in any order.
func same(t *testing.T, what string, got, want []*agentv1.RoleGrant) {
	t.Helper()
	named := map[string]*agentv1.RoleGrant{}
	for _, role := range want {
		named[role.GetDataset().GetName()] = role
	}
	for _, role := range got {
		if !proto.Equal(role, named[role.GetDataset().GetName()]) {
			t.Fatalf("%s: %v, want %v", what, role, named[role.GetDataset().GetName()])
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%s: %d roles, want %d", what, len(got), len(want))
	}
}

// TestWhoWasAwayTooLongIsToldEverything: a table forgets what went long ago.
func TestWhoWasAwayTooLongIsToldEverything(t *testing.T) {
	var ledger roleLedger
	held := func(version uint64) *agentv1.Grant {
		g := &agentv1.Grant{Incarnation: 1, Term: 1}
		ledger.table.grant(g, "north-1", &agentv1.RolesHeld{Incarnation: 1, Term: 1, Version: version})
		return g
	}
	for range mostGone + 2 {
		ledger.advance([]*v1alpha1.Dataset{dataset(v1alpha1.DatasetSteady, "north-1", "", 1)}, Terms{})
		ledger.advance(nil, Terms{})
	}
	if g := held(2); g.GetSince() != 0 {
		t.Errorf("a role that went long ago is left out of %v", g)
	}
	if g := held(ledger.table.version - 1); g.GetSince() == 0 || len(g.GetGone()) != 1 || g.GetTotal() != 0 {
		t.Errorf("the newest difference is %v", g)
	}
	for what, g := range map[string]*agentv1.Grant{
		"of a version to come":     held(ledger.table.version + 1),
		"of a version nobody held": held(0),
	} {
		if g.GetSince() != 0 {
			t.Errorf("%s: %v", what, g)
		}
	}
}
