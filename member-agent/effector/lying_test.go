package effector_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tripod.dev/tripod/failover/driver"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
	"tripod.dev/tripod/test/freeport"
)

// liar is PostgreSQL's driver under a name of its own, that says of a stop that it is
// done and does nothing, for as long as it lies.
type liar struct {
	driver.Driver
	lies atomic.Bool
}

func (l *liar) Identity() driver.Identity { return driver.Identity{Name: besideName, Version: "1"} }

func (l *liar) Fence(ctx context.Context, c driver.Call) (driver.Observation, error) {
	if l.lies.Load() {
		return driver.Observation{Role: driver.RoleNone, State: driver.StateFenced, Epoch: c.Epoch}, nil
	}
	return l.Driver.Fence(ctx, c)
}

func (l *liar) Demote(ctx context.Context, c driver.Call) (driver.Observation, error) {
	if l.lies.Load() {
		return driver.Observation{Role: driver.RoleNone, State: driver.StateClosed, Epoch: c.Epoch, Position: driver.Position{Text: "0/1", Bytes: 1}}, nil
	}
	return l.Driver.Demote(ctx, c)
}

// S16: a real database behind a driver whose fence says yes and does nothing. The
// agent's own dials find it, so the directive fails and may be tried again, and what
// writes goes on; when it has really stopped, it is done.
func TestAFenceThatSaysYesAndDoesNothingIsNotBelieved(t *testing.T) {
	f := newFleet(t, "north-1")
	f.commit(func() { f.primary, f.epoch, f.syncSet = "north-1", 1, []string{"north-1"} })
	f.powerOn("north-1")
	f.awaitGuard("north-1")
	f.must("north-1", agentv1.Verb_VERB_PROMOTE, f.decide(func() {}))
	c := f.centers["north-1"]
	l := &liar{Driver: c.effector.BuiltIn("postgresql")}
	l.lies.Store(true)
	a := &aside{Driver: l, path: c.beside()}
	a.start(t)
	t.Cleanup(a.stop)
	copied := driver.Dataset{Namespace: dataset.GetNamespace(), Name: dataset.GetName(), Cluster: "north-1"}
	wait(t, 10*time.Second, "the driver is found beside the agent", func() bool {
		return c.effector.BuiltIn(besideName).Observe(t.Context(), copied).State == driver.StateRunning
	})

	accepts := c.address + " accepts connections"
	f.unbelieved(agentv1.Verb_VERB_CLOSE, c.address, accepts)
	f.unbelieved(agentv1.Verb_VERB_FENCE, c.address, accepts)
	wrong := freeport.Addresses(t, 1)[0]
	f.unbelieved(agentv1.Verb_VERB_FENCE, wrong, "nobody accepted a connection at "+wrong+" while the driver said that the copy runs")
	f.unbelieved(agentv1.Verb_VERB_FENCE, "", "give the member of cluster north-1 an address")

	if err := f.writes("north-1"); err != nil {
		t.Fatalf("the copy is not what the driver lies about: %v", err)
	}
	l.lies.Store(false)
	f.unbelieved(agentv1.Verb_VERB_FENCE, "", "give the member of cluster north-1 an address")
	if err := f.writes("north-1"); err == nil {
		t.Fatal("the driver lied no longer, and the copy still writes")
	}
	r := f.aside(agentv1.Verb_VERB_FENCE, c.address)
	if r.GetOutcome() != done || !strings.Contains(r.GetMessage(), "connections of the agent's own to "+c.address+" were refused") {
		t.Errorf("a real fence is %v: %s", r.GetOutcome(), r.GetMessage())
	}
}

// aside has the driver beside the agent stop the copy that answers at address, as a run
// would at epoch 2, while the database's own guard is told nothing.
func (f *fleet) aside(verb agentv1.Verb, address string) *agentv1.DirectiveResult {
	return f.direct("north-1", verb, 30*time.Second, func(d *agentv1.Directive) {
		d.Role.Driver, d.Role.Address, d.Role.Protection = besideName, address, agentv1.Protection_PROTECTION_MAX_AVAILABILITY
		if d.Revision = 100; verb == agentv1.Verb_VERB_FENCE {
			d.Epoch, d.Revision = 2, 1
		}
	})
}

// unbelieved fails the test unless a stop fails for a reason, and says what it is about.
func (f *fleet) unbelieved(verb agentv1.Verb, address, why string) {
	f.t.Helper()
	r := f.aside(verb, address)
	if r.GetOutcome() != failed || !strings.Contains(r.GetMessage(), why) || !strings.Contains(r.GetMessage(), "dataset pay/ledger-db") {
		f.t.Errorf("%v is %v: %s; want it to fail: %s", verb, r.GetOutcome(), r.GetMessage(), why)
	}
	if r.GetObservation() != nil {
		f.t.Errorf("what is not believed is told on: %v", r.GetObservation())
	}
}

// writes tries one, over a session of its own.
func (f *fleet) writes(name string) error {
	conn, err := f.connect(name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err = conn.Exec(ctx, "CREATE TABLE IF NOT EXISTS still (at timestamptz); INSERT INTO still VALUES (now())", pgx.QueryExecModeSimpleProtocol)
	return errors.Join(err, conn.Close(ctx))
}
