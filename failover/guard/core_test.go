package guard

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

const margin = 500 * time.Millisecond

func at(d time.Duration) Instant { return Instant(d) }

func proofOf(role agentv1.Role, epoch, revision int64, remaining time.Duration) *agentv1.Proof {
	return &agentv1.Proof{Incarnation: 1, Revision: revision, RemainingMillis: remaining.Milliseconds(),
		Role: &agentv1.RoleGrant{Role: role, Epoch: epoch, Primary: "north-1", PrimaryAddress: "10.0.0.1:5432", SyncSet: []string{"north-1", "north-2"}}}
}

var (
	asPrimary = agentv1.Role_ROLE_PRIMARY
	asReplica = agentv1.Role_ROLE_REPLICA
	asNone    = agentv1.Role_ROLE_NONE
)

// step is one answer to a request that was sent at asked.
type step struct {
	asked time.Duration
	proof *agentv1.Proof
}

func TestCheck(t *testing.T) {
	tests := map[string]struct {
		memory Memory
		steps  []step
		now    time.Duration
		want   string
	}{
		"a guard that has just started has no proof": {now: time.Second, want: "no proof of the primary role"},
		"a fresh proof keeps the primary": {
			steps: []step{{0, proofOf(asPrimary, 1, 1, 5*time.Second)}}, now: 4 * time.Second},
		"the kill comes the margin before the deadline": {
			steps: []step{{0, proofOf(asPrimary, 1, 1, 5*time.Second)}}, now: 4500 * time.Millisecond, want: "the proof of the primary role ran out"},
		"the deadline counts from asking, whenever the answer comes": {
			steps: []step{{0, proofOf(asPrimary, 1, 1, 5*time.Second)}}, now: 4499 * time.Millisecond},
		"an answer to an earlier request does not shorten the deadline": {
			steps: []step{{2 * time.Second, proofOf(asPrimary, 1, 1, 5*time.Second)}, {0, proofOf(asPrimary, 1, 1, 5*time.Second)}}, now: 6 * time.Second},
		"a newer epoch that is another's kills at once": {
			steps: []step{{0, proofOf(asPrimary, 1, 1, 5*time.Second)}, {0, proofOf(asNone, 2, 2, 5*time.Second)}}, now: time.Second, want: "the primary role is another cluster's"},
		"an older agent's word after that does not bring the role back": {
			steps: []step{{0, proofOf(asNone, 2, 2, 5*time.Second)}, {time.Second, proofOf(asPrimary, 1, 1, 5*time.Second)}}, now: 2 * time.Second, want: "the primary role is another cluster's"},
		"an agent that has heard less does not take the role away at its epoch": {
			steps: []step{{0, proofOf(asPrimary, 1, 5, 5*time.Second)}, {time.Second, proofOf(asReplica, 1, 4, 5*time.Second)}}, now: 4 * time.Second},
		"and does not lengthen it": {
			steps: []step{{0, proofOf(asPrimary, 1, 5, 5*time.Second)}, {3 * time.Second, proofOf(asReplica, 1, 4, 5*time.Second)}}, now: 5 * time.Second, want: "the proof of the primary role ran out"},
		"the promotion at an epoch follows its replica's proof": {
			steps: []step{{0, proofOf(asReplica, 2, 2, 5*time.Second)}, {time.Second, proofOf(asPrimary, 2, 3, 4*time.Second)}}, now: 4 * time.Second},
		"a grant that does not name the dataset is no instruction": {
			steps: []step{{0, proofOf(asPrimary, 1, 1, 5*time.Second)}, {time.Second, &agentv1.Proof{Incarnation: 1, Revision: 2}}}, now: 4 * time.Second},
		"the volume's epoch outlives the guard": {
			memory: Memory{Incarnation: 1, Epoch: 3}, steps: []step{{0, proofOf(asPrimary, 2, 9, 5*time.Second)}}, now: time.Second, want: "no proof of the primary role"},
		"an older incarnation of the hub proves nothing": {
			memory: Memory{Incarnation: 2, Epoch: 3}, steps: []step{{0, proofOf(asPrimary, 3, 9, 5*time.Second)}}, now: time.Second, want: "no proof of the primary role"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := NewCore(tt.memory, margin)
			c.SetMode(agentv1.DatabaseMode_DATABASE_MODE_PRIMARY)
			for _, s := range tt.steps {
				if _, err := c.Learn(at(s.asked), s.proof); err != nil && !errors.Is(err, ErrOlder) {
					t.Fatal(err)
				}
			}
			kill, got := c.Check(at(tt.now))
			if got != tt.want || kill != (tt.want != "") {
				t.Errorf("kill=%v %q, want %q", kill, got, tt.want)
			}
			c.SetMode(agentv1.DatabaseMode_DATABASE_MODE_REPLICA)
			if kill, reason := c.Check(at(tt.now)); kill {
				t.Errorf("a replica was killed: %s", reason)
			}
		})
	}
}

func command(epoch, revision int64, work any) *agentv1.GuardCommand {
	cmd := &agentv1.GuardCommand{Id: "c", Incarnation: 1, Epoch: epoch, Revision: revision}
	switch w := work.(type) {
	case *agentv1.StartPrimary:
		cmd.Work = &agentv1.GuardCommand_StartPrimary{StartPrimary: w}
	case *agentv1.StartReplica:
		cmd.Work = &agentv1.GuardCommand_StartReplica{StartReplica: w}
	case *agentv1.PromoteReplica:
		cmd.Work = &agentv1.GuardCommand_Promote{Promote: w}
	case *agentv1.FenceDatabase:
		cmd.Work = &agentv1.GuardCommand_Fence{Fence: w}
	case *agentv1.RewindCopy:
		cmd.Work = &agentv1.GuardCommand_Rewind{Rewind: w}
	case *agentv1.FreshCopy:
		cmd.Work = &agentv1.GuardCommand_Copy{Copy: w}
	case *agentv1.CloseDatabase:
		cmd.Work = &agentv1.GuardCommand_Close{Close: w}
	case *agentv1.WaitFor:
		cmd.Work = &agentv1.GuardCommand_WaitFor{WaitFor: w}
	}
	return cmd
}

func TestAdmit(t *testing.T) {
	const running, standing, none = agentv1.DatabaseMode_DATABASE_MODE_PRIMARY, agentv1.DatabaseMode_DATABASE_MODE_REPLICA, agentv1.DatabaseMode_DATABASE_MODE_STOPPED
	tests := map[string]struct {
		memory Memory
		mode   agentv1.DatabaseMode
		proof  *agentv1.Proof
		cmd    *agentv1.GuardCommand
		want   error
	}{
		"a primary starts with a fresh proof": {
			memory: Memory{Formed: true, Held: 1}, mode: none, proof: proofOf(asPrimary, 1, 1, time.Minute), cmd: command(1, 0, &agentv1.StartPrimary{})},
		"without a proof it does not": {
			memory: Memory{Formed: true, Held: 1}, mode: none, cmd: command(1, 0, &agentv1.StartPrimary{}), want: ErrNoProof},
		"with the proof of another epoch it does not": {
			memory: Memory{Formed: true, Held: 1}, mode: none, proof: proofOf(asPrimary, 1, 1, time.Minute), cmd: command(2, 0, &agentv1.StartPrimary{}), want: ErrNoProof},
		"a replica's proof is no primary's": {
			memory: Memory{Formed: true}, mode: none, proof: proofOf(asReplica, 1, 1, time.Minute), cmd: command(1, 0, &agentv1.StartPrimary{}), want: ErrNoProof},
		"an empty volume forms at epoch 1": {
			mode: none, proof: proofOf(asPrimary, 1, 1, time.Minute), cmd: command(1, 0, &agentv1.StartPrimary{Form: true})},
		"an empty volume at epoch 2 has lost its data and does not form": {
			mode: none, proof: proofOf(asPrimary, 2, 1, time.Minute), cmd: command(2, 0, &agentv1.StartPrimary{Form: true}), want: ErrRefused},
		"a volume with a copy is not formed again": {
			memory: Memory{Formed: true}, mode: none, proof: proofOf(asPrimary, 1, 1, time.Minute), cmd: command(1, 0, &agentv1.StartPrimary{Form: true}), want: ErrRefused},
		"a torn copy is not started": {
			memory: Memory{Formed: true, Torn: true}, mode: none, cmd: command(1, 0, &agentv1.StartReplica{}), want: ErrRefused},
		"a running primary does not become a replica by a start": {
			memory: Memory{Formed: true}, mode: running, cmd: command(1, 0, &agentv1.StartReplica{}), want: ErrRefused},
		"a replica is promoted with a fresh proof": {
			memory: Memory{Formed: true, Standby: true}, mode: standing, proof: proofOf(asPrimary, 2, 1, time.Minute), cmd: command(2, 0, &agentv1.PromoteReplica{})},
		"an older epoch is refused": {
			memory: Memory{Epoch: 3}, mode: running, cmd: command(2, 0, &agentv1.FenceDatabase{}), want: ErrOlder},
		"an older incarnation is refused": {
			memory: Memory{Incarnation: 2}, mode: running, cmd: command(2, 0, &agentv1.FenceDatabase{}), want: ErrOlder},
		"a fence needs no proof": {mode: running, cmd: command(2, 0, &agentv1.FenceDatabase{})},
		"a delayed decision does not undo a newer one": {
			memory: Memory{Incarnation: 1, Epoch: 2, Revision: 40, WaitsFor: []string{"north-2"}}, mode: running,
			cmd: command(2, 39, &agentv1.WaitFor{Confirmed: true}), want: ErrOlder},
		"revisions start anew with an epoch": {
			memory: Memory{Incarnation: 1, Epoch: 2, Revision: 40}, mode: running, cmd: command(3, 39, &agentv1.FenceDatabase{})},
		"and with an incarnation: a restored hub counts from its backup": {
			memory: Memory{Incarnation: 1, Epoch: 2, Revision: 40}, mode: running, cmd: &agentv1.GuardCommand{Incarnation: 2, Epoch: 2, Revision: 39, Work: &agentv1.GuardCommand_Fence{Fence: &agentv1.FenceDatabase{}}}},
		"a new incarnation's hub opens what the old one closed": {
			memory: Memory{Incarnation: 1, Epoch: 1, Formed: true, Held: 1, Revision: 7, Closed: 7}, mode: none,
			proof: &agentv1.Proof{Incarnation: 2, Revision: 3, RemainingMillis: 60000, Role: &agentv1.RoleGrant{Role: asPrimary, Epoch: 1, Primary: "north-1"}},
			cmd:   &agentv1.GuardCommand{Incarnation: 2, Epoch: 1, Work: &agentv1.GuardCommand_StartPrimary{StartPrimary: &agentv1.StartPrimary{}}}},
		"the primary of the epoch is never the target of a copy": {
			memory: Memory{Formed: true, Held: 2}, mode: none, cmd: command(2, 0, &agentv1.FreshCopy{}), want: ErrRefused},
		"nor one that holds the proof": {
			memory: Memory{Formed: true}, mode: none, proof: proofOf(asPrimary, 2, 1, time.Minute), cmd: command(2, 0, &agentv1.FreshCopy{}), want: ErrRefused},
		"a former primary is, at a later epoch": {
			memory: Memory{Formed: true, Held: 1}, mode: none, proof: proofOf(asReplica, 2, 1, time.Minute), cmd: command(2, 0, &agentv1.RewindCopy{})},
		"a running copy is not rewound": {
			memory: Memory{Formed: true}, mode: standing, cmd: command(2, 0, &agentv1.RewindCopy{}), want: ErrRefused},
		"waiting may be added to": {
			memory: Memory{WaitsFor: []string{"north-2"}}, mode: running, cmd: command(1, 0, &agentv1.WaitFor{Standbys: []string{"north-2", "south-1"}})},
		"waiting is not made less without confirmation": {
			memory: Memory{WaitsFor: []string{"north-2"}}, mode: running, cmd: command(1, 0, &agentv1.WaitFor{Standbys: []string{"south-1"}}), want: ErrRefused},
		"the primary of the epoch is closed": {
			memory: Memory{Epoch: 2, Formed: true, Held: 2}, mode: running, cmd: command(2, 7, &agentv1.CloseDatabase{})},
		"the primary of an earlier epoch is not": {
			memory: Memory{Epoch: 2, Formed: true, Held: 1}, mode: none, cmd: command(2, 7, &agentv1.CloseDatabase{}), want: ErrRefused},
		"nor at an epoch that is over": {
			memory: Memory{Epoch: 3, Formed: true, Held: 3}, mode: running, cmd: command(2, 7, &agentv1.CloseDatabase{}), want: ErrOlder},
		"nor is a replica": {
			memory: Memory{Epoch: 2, Formed: true, Held: 2, Standby: true}, mode: standing, cmd: command(2, 7, &agentv1.CloseDatabase{}), want: ErrRefused},
		"a closed primary is not started by the agent itself": {
			memory: Memory{Incarnation: 1, Epoch: 1, Formed: true, Held: 1, Revision: 7, Closed: 7}, mode: none, proof: proofOf(asPrimary, 1, 1, time.Minute),
			cmd: command(1, 0, &agentv1.StartPrimary{}), want: ErrRefused},
		"nor by the decision that closed it": {
			memory: Memory{Incarnation: 1, Epoch: 1, Formed: true, Held: 1, Revision: 7, Closed: 7}, mode: none, proof: proofOf(asPrimary, 1, 1, time.Minute),
			cmd: command(1, 7, &agentv1.StartPrimary{}), want: ErrRefused},
		"but by a later one": {
			memory: Memory{Incarnation: 1, Epoch: 1, Formed: true, Held: 1, Revision: 7, Closed: 7}, mode: none, proof: proofOf(asPrimary, 1, 1, time.Minute),
			cmd: command(1, 8, &agentv1.StartPrimary{})},
		"and by the proof of a later epoch": {
			memory: Memory{Incarnation: 1, Epoch: 1, Formed: true, Held: 1, Revision: 7, Closed: 7}, mode: none, proof: proofOf(asPrimary, 3, 9, time.Minute),
			cmd: command(3, 0, &agentv1.StartPrimary{})},
		"work that the guard does not know is refused": {mode: none, cmd: &agentv1.GuardCommand{Incarnation: 1, Epoch: 1}, want: ErrRefused},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := NewCore(tt.memory, margin)
			c.SetMode(tt.mode)
			if tt.proof != nil {
				if _, err := c.Learn(0, tt.proof); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.Admit(tt.cmd, at(time.Second)); !errors.Is(err, tt.want) || (tt.want == nil && err != nil) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestWhatASurelyWaitsFor(t *testing.T) {
	c := NewCore(Memory{Epoch: 1, Held: 1, WaitsFor: []string{"south-1"}}, margin)
	if _, err := c.Learn(0, proofOf(asPrimary, 1, 1, time.Minute)); err != nil {
		t.Fatal(err)
	}
	// A restart waits for whom it waited, whatever the grant's set still says.
	if diff := cmp.Diff([]string{"south-1"}, c.Waits("north-1", []string{"north-1"})); diff != "" {
		t.Error(diff)
	}
	// A new epoch has confirmed nobody: it waits for whom it is told.
	if _, err := c.Learn(0, proofOf(asPrimary, 2, 2, time.Minute)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"north-3"}, c.Waits("north-1", []string{"north-1", "north-3"})); diff != "" {
		t.Error(diff)
	}
	c.memory.becamePrimary(2)
	if got := c.Memory().WaitsFor; got != nil {
		t.Errorf("at a new epoch %v were sure already", got)
	}
}

// history is what the hub committed: who is primary at each epoch.
type history []bool

// unproven is the invariant: a database may write only with a proof of the
// primary role at the highest epoch seen, asked for not longer ago than the
// proof said was left, less the margin.
func unproven(c *Core, asked []step, now Instant) bool {
	if !c.MayBePrimary(now) {
		return false
	}
	return !slices.ContainsFunc(asked, func(s step) bool {
		role := s.proof.GetRole()
		ends := at(s.asked).Add(time.Duration(s.proof.GetRemainingMillis())*time.Millisecond - margin)
		return role.GetRole() == asPrimary && role.GetEpoch() == c.Memory().Epoch && now < ends
	})
}

func drawProofs(t *rapid.T) []step {
	committed := rapid.SliceOfN(rapid.Bool(), 1, 6).Draw(t, "primary at epoch")
	var steps []step
	for i := range rapid.IntRange(1, 30).Draw(t, "answers") {
		epoch := rapid.IntRange(1, len(committed)).Draw(t, "epoch")
		role := asReplica
		if history(committed)[epoch-1] {
			role = asPrimary
		}
		remaining := time.Duration(rapid.IntRange(0, 5000).Draw(t, "remaining")) * time.Millisecond
		asked := time.Duration(i)*300*time.Millisecond - time.Duration(rapid.IntRange(0, 2000).Draw(t, "late"))*time.Millisecond
		steps = append(steps, step{asked, proofOf(role, int64(epoch), int64(epoch*10), remaining)})
	}
	return steps
}

func TestNoWriterWithoutProof(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := NewCore(Memory{}, margin)
		steps := drawProofs(t)
		var epoch int64
		for i, s := range steps {
			_, _ = c.Learn(at(s.asked), s.proof)
			if m := c.Memory(); m.Epoch < epoch {
				t.Fatalf("the epoch went from %d to %d", epoch, m.Epoch)
			}
			epoch = c.Memory().Epoch
			for _, now := range []time.Duration{s.asked, time.Duration(i) * 300 * time.Millisecond, 20 * time.Second} {
				if unproven(c, steps[:i+1], at(now)) {
					t.Fatalf("it may write at %v without proof", now)
				}
			}
		}
	})
}

func TestTheCheckerOfNoWriterWithoutProofFindsAPlantedBug(t *testing.T) {
	c := NewCore(Memory{}, margin)
	steps := []step{{0, proofOf(asPrimary, 1, 1, time.Second)}}
	if _, err := c.Learn(0, steps[0].proof); err != nil {
		t.Fatal(err)
	}
	c.deadline = c.deadline.Add(2 * time.Second) // as if counted from the answer
	if !unproven(c, steps, at(2*time.Second)) {
		t.Error("a deadline counted from the answer was not found")
	}
}
