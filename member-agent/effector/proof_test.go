package effector

import (
	"context"
	"testing"
	"time"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// promised plays pledges that keep whatever they are asked about.
type promised struct {
	noPledges
	kept    time.Duration
	waits   []string
	granted time.Duration
	yielded []int64
	err     error
}

func (p *promised) Granted(_ *agentv1.Grant, remaining time.Duration) { p.granted = remaining }

func (p *promised) Kept(_ *agentv1.DatasetKey, _ int64, waits []string) time.Duration {
	p.waits = waits
	return p.kept
}

func (p *promised) Yield(_ context.Context, _ uint64, _ *agentv1.DatasetKey, epoch int64) error {
	p.yielded = append(p.yielded, epoch)
	return p.err
}

func TestPledgesLengthenAProof(t *testing.T) {
	failsafe := func(g *agentv1.Grant) *agentv1.Grant {
		g.Roles[0].Failsafe = &agentv1.Failsafe{Pledgers: []string{"b"}}
		return g
	}
	primary := func() *agentv1.Grant { return granted(1, 3, agentv1.Role_ROLE_PRIMARY) }
	ask := &agentv1.ProofRequest{Seq: 1, HeldEpoch: 3, WaitsFor: []string{"b", "c"}}
	for name, tc := range map[string]struct {
		grant *agentv1.Grant
		ask   *agentv1.ProofRequest
		after time.Duration
		want  time.Duration // 0: no proof
	}{
		"the lease is over, and pledges run":                      {failsafe(primary()), ask, 5 * time.Second, 3 * time.Second},
		"the lease is longer":                                     {failsafe(primary()), ask, 0, 4 * time.Second},
		"pledges are longer":                                      {failsafe(primary()), ask, 2 * time.Second, 3 * time.Second},
		"a hub that offers none":                                  {primary(), ask, 5 * time.Second, 0},
		"a replica's role":                                        {failsafe(granted(1, 3, agentv1.Role_ROLE_REPLICA)), ask, 5 * time.Second, 0},
		"a copy that was never promoted at this epoch":            {failsafe(primary()), &agentv1.ProofRequest{Seq: 1, HeldEpoch: 2}, 5 * time.Second, 0},
		"a guard that does not tell whom its copy waits for":      {failsafe(primary()), &agentv1.ProofRequest{Seq: 1}, 5 * time.Second, 0},
		"nobody asks":                                             {failsafe(primary()), nil, 5 * time.Second, 0},
		"a role that was taken away while its lease was not over": {failsafe(granted(2, 4, agentv1.Role_ROLE_NONE)), ask, 5 * time.Second, 0},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Now()
			p := &promised{kept: 3 * time.Second}
			e := &Effector{cfg: Config{Pledges: p}, grants: newGrants()}
			e.grants.take(tc.grant, now.Add(4*time.Second))
			proof := e.proof(ledgerKey, tc.ask, now.Add(tc.after))
			if got := time.Duration(proof.GetRemainingMillis()) * time.Millisecond; got != tc.want {
				t.Errorf("proven for %v, want %v", got, tc.want)
			}
			if p.waits != nil && len(p.waits) != 2 {
				t.Errorf("pledges were asked about %v, want those of the question", p.waits)
			}
		})
	}
}

func TestARecalledGrantIsWorthItsPledgesAndNoLease(t *testing.T) {
	g := granted(7, 3, agentv1.Role_ROLE_PRIMARY)
	g.TtlMillis = 5000
	g.Roles[0].Failsafe = &agentv1.Failsafe{}
	p := &promised{}
	e := &Effector{cfg: Config{Pledges: p, Tick: time.Second}, grants: newGrants()}
	e.links = newLinks(e)
	e.Recall(g)
	ask := &agentv1.ProofRequest{Seq: 1, HeldEpoch: 3, Running: true}
	if proof := e.proof(ledgerKey, ask, time.Now()); proof != nil {
		t.Errorf("an old grant proves %v", proof)
	}
	if p.granted != 4*time.Second {
		t.Errorf("pledgers are asked as if the lease ended in %v; the hub is to have a tick", p.granted)
	}
	p.kept = time.Second
	if proof := e.proof(ledgerKey, ask, time.Now()); proof.GetRemainingMillis() != 1000 || proof.GetRevision() != 7 {
		t.Errorf("pledges prove %v", proof)
	}
	ask.Running = false
	if proof := e.proof(ledgerKey, ask, time.Now()); proof != nil {
		t.Errorf("a database that has stopped would be started on an old grant: %v", proof)
	}
	e.Grant(granted(6, 2, agentv1.Role_ROLE_REPLICA), time.Now().Add(time.Second))
	if role, _, _ := e.grants.primary(ledgerKey); role == nil {
		t.Error("an older grant has replaced the recalled one")
	}
}
