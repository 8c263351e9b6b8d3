package scenario

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"tripod.dev/tripod/deploy/ledger"
	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/test/multikind/fault"
	"tripod.dev/tripod/test/multikind/traffic"
)

// move is a switchover under way, from a to b.
type move struct {
	f    *Fleet
	run  string
	a, b string
}

// still is a process that stands still, and so keeps the run where it is.
type still struct{ process, center string }

// holdUps are the steps of a switchover. The source is held up by its guard, which
// its agent's heartbeats do not need; the target by its agent.
var holdUps = []struct {
	step  string
	reach func(t *testing.T, m *move) still
}{
	{"while the source closes", func(t *testing.T, m *move) still {
		m.untilClose(t)
		return m.source()
	}},
	{"while the target catches up", func(t *testing.T, m *move) still {
		m.untilCatchUp(t)
		return m.target()
	}},
	{"while the source is fenced", func(t *testing.T, m *move) still {
		m.untilFence(t)
		return m.source()
	}},
	{"while the target is promoted", func(t *testing.T, m *move) still {
		m.untilFence(t)
		m.inject(t, fault.Stop, m.target())
		m.inject(t, fault.Cont, m.source())
		m.await(t, "the target may be promoted", func(r v1alpha1.RecoveryRunStatus) bool { return r.Phase == v1alpha1.RunPromoting })
		return m.target()
	}},
}

func (m *move) source() still { return still{"guard", m.a} }
func (m *move) target() still { return still{"agent", m.b} }

func (m *move) untilClose(t *testing.T) {
	t.Helper()
	m.inject(t, fault.Stop, m.source())
	m.order(t)
	m.await(t, "the source is told to close", func(r v1alpha1.RecoveryRunStatus) bool { return r.Phase == v1alpha1.RunClosing })
}

func (m *move) untilCatchUp(t *testing.T) {
	t.Helper()
	m.untilClose(t)
	m.inject(t, fault.Stop, m.target())
	m.inject(t, fault.Cont, m.source())
	m.await(t, "the target is to catch up", func(r v1alpha1.RecoveryRunStatus) bool { return hasStep(r, "catch-up") })
}

func (m *move) untilFence(t *testing.T) {
	t.Helper()
	m.untilCatchUp(t)
	m.inject(t, fault.Stop, m.source())
	m.inject(t, fault.Cont, m.target())
	m.await(t, "the source is to be fenced", func(r v1alpha1.RecoveryRunStatus) bool { return r.Phase == v1alpha1.RunFencing })
}

func (m *move) inject(t *testing.T, kind fault.Kind, s still) {
	t.Helper()
	if _, err := m.f.Inject(t.Context(), fault.Fault{Kind: kind, Process: s.process, Center: s.center}); err != nil {
		t.Fatal(err)
	}
}

func (m *move) order(t *testing.T) {
	t.Helper()
	m.run = m.f.order(t, "switchover", application, "--to", m.b, "--pause-limit", "1m")
}

func (m *move) status(ctx context.Context) (v1alpha1.RecoveryRunStatus, error) {
	r, err := m.f.recoveryRun(ctx, m.run)
	if err != nil {
		return v1alpha1.RecoveryRunStatus{}, err
	}
	return r.Status, nil
}

func (m *move) await(t *testing.T, what string, met func(v1alpha1.RecoveryRunStatus) bool) {
	t.Helper()
	err := m.f.await(t.Context(), 30*time.Second, what, func(ctx context.Context) (string, error) {
		s, err := m.status(ctx)
		if err != nil || met(s) {
			return "", err
		}
		return fmt.Sprintf("%s is %s %s %s", m.run, s.Phase, s.Reason, s.Message), nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func hasStep(r v1alpha1.RecoveryRunStatus, name string) bool {
	return slices.ContainsFunc(r.Steps, func(s v1alpha1.RunStep) bool { return s.Name == name })
}

// S17: a planned switchover under load, aborted at each step in turn, then done.
// Zero lost, zero double; an abort leaves the source primary.
func TestS17PlannedSwitchover(t *testing.T) {
	f := fleet(t)
	before, err := f.Dataset(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	a, b := before.Status.Primary, "north-1"
	if a == b {
		b = "north-2"
	}
	load := business(t, f)
	if err := load.AwaitTransfers(t.Context(), 50, time.Minute); err != nil {
		t.Fatal(err)
	}
	for _, h := range holdUps {
		t.Run("aborted "+h.step, func(t *testing.T) { abortSwitchover(t, load, &move{f: f, a: a, b: b}, h.reach) })
	}
	t.Run("done", func(t *testing.T) { completeSwitchover(t, load, a, b) })
	audit(t, load)
}

func abortSwitchover(t *testing.T, load *Business, m *move, reach func(*testing.T, *move) still) {
	f := m.f
	if err := f.AwaitProtected(t.Context(), 2*time.Minute, m.a, m.b); err != nil {
		t.Fatal(err)
	}
	if err := load.AwaitTransfers(t.Context(), 100, time.Minute); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // whatever came of it
		for _, s := range []still{m.source(), m.target()} {
			_, _ = f.Inject(context.WithoutCancel(t.Context()), fault.Fault{Kind: fault.Cont, Process: s.process, Center: s.center})
		}
	})
	held := reach(t, m)
	aborted := make(chan error, 1)
	go func() {
		_, err := f.Tripodctl(t.Context(), "run", "abort", m.run, "--comment", "a drill")
		aborted <- err
	}()
	m.await(t, "it returns", func(r v1alpha1.RecoveryRunStatus) bool {
		return r.Phase == v1alpha1.RunReturning || r.Phase == v1alpha1.RunAborted
	})
	m.inject(t, fault.Cont, held)
	if err := <-aborted; err != nil {
		t.Errorf("tripodctl run abort: %v", err)
	}
	s, err := m.status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s %s: %s; the pause was %+v", s.Phase, s.Reason, s.Message, s.Measured)
	d, err := f.Dataset(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.Phase != v1alpha1.RunAborted || s.Reason != "AbortedByPerson" || d.Status.Primary != m.a || d.Status.Phase != v1alpha1.DatasetSteady {
		t.Errorf("the run is %s %s, the primary %s in phase %s, the source was %s", s.Phase, s.Reason, d.Status.Primary, d.Status.Phase, m.a)
	}
	if err := load.AwaitTransfers(t.Context(), 100, time.Minute); err != nil {
		t.Errorf("transfers after the abort: %v", err)
	}
	if verified, err := f.verifyEvidence(t.Context(), m.run); err != nil || !verified {
		t.Errorf("the evidence of %s is verified: %t %v", m.run, verified, err)
	}
}

// tooLong is a pause that no busy machine explains: whoever was cut off for a lease
// has lost it. How long it is on a quiet one, `make bench-failover` measures.
const tooLong = leaseSeconds * time.Second

func completeSwitchover(t *testing.T, load *Business, a, b string) {
	f := load.fleet
	if err := f.AwaitProtected(t.Context(), 2*time.Minute, a, b); err != nil {
		t.Fatal(err)
	}
	if err := load.AwaitTransfers(t.Context(), 100, time.Minute); err != nil {
		t.Fatal(err)
	}
	began := traffic.Monotonic()
	said := must(t)(f.Tripodctl(t.Context(), "switchover", ledger.Namespace+"/ledger", "--to", b))
	says(t, said, "Closing", "Completed", "writes were closed for at most", string(v1alpha1.FenceAcknowledged), "nothing is missing")
	t.Log(said)
	if err := load.AwaitTransfers(t.Context(), 100, time.Minute); err != nil {
		t.Error(err)
	}
	pause, err := load.longestPause(began)
	if err != nil {
		t.Fatal(err)
	}
	f.tell(fmt.Sprintf("the longest time without an acknowledged transfer was %v", pause))
	if pause > tooLong {
		t.Errorf("clients could not write for %v: as long as a lease", pause)
	}
	d, err := f.Dataset(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d.Status.Primary != b {
		t.Errorf("the primary is %s, want %s", d.Status.Primary, b)
	}
	if err := f.AwaitProtected(t.Context(), 2*time.Minute, a, b); err != nil {
		t.Error(err)
	}
}

// S17 and S21: the hub's leader dies at a step of a switchover. The run goes on
// under the next one to either of its ends, and nothing is lost.
func TestS17TheLeaderDiesDuringASwitchover(t *testing.T) {
	f := fleet(t)
	load := business(t, f)
	for _, h := range holdUps {
		t.Run(h.step, func(t *testing.T) {
			m := nextMove(t, f)
			if err := f.LeadFrom(t.Context(), remoteCenter); err != nil {
				t.Fatal(err)
			}
			if err := load.AwaitTransfers(t.Context(), 50, time.Minute); err != nil {
				t.Fatal(err)
			}
			held := h.reach(t, m)
			if _, err := f.Inject(t.Context(), fault.Fault{Kind: fault.Kill, Process: "hub", Center: remoteCenter}); err != nil {
				t.Fatal(err)
			}
			m.inject(t, fault.Cont, held)
			m.ends(t)
			if err := load.AwaitTransfers(t.Context(), 50, time.Minute); err != nil {
				t.Errorf("transfers after the run: %v", err)
			}
			if err := f.Repair(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
	audit(t, load)
}

// S17: the target's center loses power during a switchover: the source is the
// primary again.
func TestS17TheTargetIsLostDuringASwitchover(t *testing.T) {
	f := fleet(t)
	load := business(t, f)
	for _, h := range []int{1, 3} { // it catches up, it is promoted
		t.Run(holdUps[h].step, func(t *testing.T) {
			m := nextMove(t, f)
			if err := load.AwaitTransfers(t.Context(), 50, time.Minute); err != nil {
				t.Fatal(err)
			}
			holdUps[h].reach(t, m)
			if _, err := f.Inject(t.Context(), fault.Fault{Kind: fault.PowerOff, Center: m.b}); err != nil {
				t.Fatal(err)
			}
			s := m.ends(t)
			if s.Phase != v1alpha1.RunAborted || s.Reason != "TargetLost" {
				t.Errorf("the run is %s %s: %s", s.Phase, s.Reason, s.Message)
			}
			if err := f.Repair(t.Context()); err != nil {
				t.Fatal(err)
			}
			// Under ZeroLoss writes may have waited for the target all the time.
			if err := load.AwaitTransfers(t.Context(), 50, 2*time.Minute); err != nil {
				t.Errorf("transfers after the run: %v", err)
			}
		})
	}
	audit(t, load)
}

// nextMove is from where the primary is to the other synchronous copy.
func nextMove(t *testing.T, f *Fleet) *move {
	t.Helper()
	d, err := f.Dataset(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m := &move{f: f, a: d.Status.Primary, b: "north-1"}
	if m.a == m.b {
		m.b = "north-2"
	}
	if err := f.AwaitProtected(t.Context(), 3*time.Minute, m.a, m.b); err != nil {
		t.Fatal(err)
	}
	return m
}

// ends waits until the run has ended, and judges that it ended as it says.
func (m *move) ends(t *testing.T) v1alpha1.RecoveryRunStatus {
	t.Helper()
	var end v1alpha1.RecoveryRunStatus
	m.await(t, "the run ends", func(r v1alpha1.RecoveryRunStatus) bool {
		end = r
		return r.Phase == v1alpha1.RunCompleted || r.Phase == v1alpha1.RunAborted
	})
	want := m.a
	if end.Phase == v1alpha1.RunCompleted {
		want = m.b
	}
	d, err := m.f.Dataset(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s %s %s; the pause was %+v", end.Phase, end.Reason, end.Message, end.Measured)
	if d.Status.Primary != want || d.Status.Phase != v1alpha1.DatasetSteady {
		t.Errorf("the run is %s, and the primary is %s in phase %s", end.Phase, d.Status.Primary, d.Status.Phase)
	}
	return end
}
