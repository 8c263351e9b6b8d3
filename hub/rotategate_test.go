package hub

import (
	"strings"
	"testing"

	"tripod.dev/tripod/hub/identity"
	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

func TestWhatARotationOfTheCAWaitsFor(t *testing.T) {
	who, err := identity.Open(t.Context(), identity.Config{Name: "a", DataDir: t.TempDir(), Advertise: "127.0.0.1", Bootstrap: true})
	if err != nil {
		t.Fatal(err)
	}
	next, err := who.Candidate()
	if err != nil {
		t.Fatal(err)
	}
	trust, err := who.Plan().Begin(next)
	if err != nil {
		t.Fatal(err)
	}
	issue := trust.Advance()
	serve := issue.Advance()
	member := func(plan identity.Plan, agents ...*hubv1.AgentStanding) *hubv1.AuthorityStandingResponse {
		return &hubv1.AuthorityStandingResponse{Generation: plan.Generation, HasNext: true, Shows: []string{identity.Fingerprint(next)}, Agents: agents}
	}
	agent := func(age int64, generation uint64, pending ...string) *hubv1.AgentStanding {
		return &hubv1.AgentStanding{Cluster: "north", Replica: "0", Known: true, Generation: generation, Pending: pending, AgeMillis: age}
	}
	two := func(a, b *hubv1.AuthorityStandingResponse) map[string]*hubv1.AuthorityStandingResponse {
		return map[string]*hubv1.AuthorityStandingResponse{"a": a, "b": b}
	}
	old := member(issue, agent(0, issue.Generation))
	old.Old = []*hubv1.OldCertificate{{Name: "anna", Serial: "1", Shown: 10}}
	behind, keyless, showing := member(trust), member(trust), member(serve)
	behind.Generation, keyless.HasNext, showing.Shows = 0, false, []string{identity.Fingerprint(next), "sha256:old"}
	for name, test := range map[string]struct {
		gate gate
		want []string
	}{
		"all trust":                   {gate{plan: trust, standings: two(member(trust), member(trust)), clusters: []string{"north"}}, nil},
		"one is behind":               {gate{plan: trust, standings: two(member(trust), behind)}, []string{"member b has not come"}},
		"one lacks the key":           {gate{plan: trust, standings: two(member(trust), keyless)}, []string{"member b has not got the key"}},
		"one is silent":               {gate{plan: trust, standings: two(member(trust), member(trust)), silent: map[string]string{"c": "does not answer"}}, []string{"member c does not answer"}},
		"agents have followed":        {gate{plan: issue, standings: two(member(issue), member(issue, agent(0, issue.Generation))), clusters: []string{"north"}}, nil},
		"an agent is away":            {gate{plan: issue, standings: two(member(issue), member(issue)), clusters: []string{"north"}}, []string{"cluster north: no member hears"}},
		"and is left behind":          {gate{plan: issue, standings: two(member(issue), member(issue)), clusters: []string{"north"}, without: []string{"north"}}, nil},
		"an agent has not heard":      {gate{plan: issue, standings: two(member(issue), member(issue, agent(0, 0))), clusters: []string{"north"}}, []string{"does not know the new CA"}},
		"a guard is behind":           {gate{plan: issue, standings: two(member(issue), member(issue, agent(0, issue.Generation, "a guard"))), clusters: []string{"north"}}, []string{"cluster north: a guard"}},
		"the last word counts":        {gate{plan: issue, standings: two(member(issue, agent(900, 0)), member(issue, agent(10, issue.Generation))), clusters: []string{"north"}}, nil},
		"an old program":              {gate{plan: issue, standings: two(member(issue), member(issue, &hubv1.AgentStanding{Cluster: "north"})), clusters: []string{"north"}}, []string{"upgrade it"}},
		"somebody comes with old":     {gate{plan: issue, standings: two(member(issue), old), clusters: []string{"north"}}, []string{"anna came with a certificate of the old CA (serial 1) at 1970-01-01T00:00:10Z"}},
		"and is left behind, as told": {gate{plan: issue, standings: two(member(issue), old), clusters: []string{"north"}, without: []string{"anna"}}, nil},
		"a port shows the old":        {gate{plan: serve, standings: two(member(serve), showing)}, []string{"member b shows a certificate of another CA: sha256:old"}},
		"all serve":                   {gate{plan: serve, standings: two(member(serve), member(serve)), clusters: []string{"north"}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := append(test.gate.members(), test.gate.others()...)
			if len(got) != len(test.want) {
				t.Fatalf("waits for %q, want %q", got, test.want)
			}
			for i, want := range test.want {
				if !strings.Contains(got[i], want) {
					t.Errorf("waits for %q, want %q", got[i], want)
				}
			}
		})
	}
	if (gate{plan: trust, standings: two(member(trust), keyless)}).lost() || !(gate{plan: trust, standings: two(keyless, keyless)}).lost() ||
		(gate{plan: trust, standings: two(keyless, keyless), silent: map[string]string{"c": ""}}).lost() {
		t.Error("a key counts as lost that somebody has or may have, or the other way round")
	}
}
