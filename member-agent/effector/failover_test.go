package effector_test

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

func (f *fleet) connect(name string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig("sslmode=require")
	if err != nil {
		return nil, err
	}
	host, port, _ := net.SplitHostPort(f.centers[name].address)
	number, err := net.LookupPort("tcp", port)
	if err != nil {
		return nil, err
	}
	config.Host, config.Port, config.Fallbacks = host, uint16(number), nil
	config.TLSConfig = &tls.Config{InsecureSkipVerify: true}
	config.User, config.Password, config.Database = passwords["client-user"], passwords["client-password"], passwords["database"]
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return pgx.ConnectConfig(ctx, config)
}

// ledger writes transfers over one open session and keeps what was acknowledged.
type ledger struct {
	mu    sync.Mutex
	sent  int
	acked []int
	end   error
	done  chan struct{}
}

// run writes until the session breaks or stop is closed.
func (l *ledger) run(conn *pgx.Conn, stop <-chan struct{}) {
	defer close(l.done)
	defer conn.Close(context.Background())
	for {
		select {
		case <-stop:
			return
		default:
		}
		l.mu.Lock()
		l.sent++
		id := l.sent
		l.mu.Unlock()
		if _, err := conn.Exec(context.Background(), "INSERT INTO transfer (id) VALUES ($1)", id); err != nil {
			l.mu.Lock()
			l.end = err
			l.mu.Unlock()
			return
		}
		l.mu.Lock()
		l.acked = append(l.acked, id)
		l.mu.Unlock()
	}
}

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

func (f *fleet) start(l *ledger, name string) (stop chan struct{}) {
	f.t.Helper()
	conn, err := f.connect(name)
	must(f.t, err)
	stop, l.done = make(chan struct{}), make(chan struct{})
	go l.run(conn, stop)
	before := l.count()
	wait(f.t, 10*time.Second, "transfers in "+name, func() bool { return l.count() > before+50 })
	return stop
}

func (f *fleet) present(name string) []int {
	f.t.Helper()
	var ids []int
	f.query(name, func(conn *pgx.Conn) error {
		rows, err := conn.Query(context.Background(), "SELECT id FROM transfer ORDER BY id")
		if err != nil {
			return err
		}
		ids, err = pgx.CollectRows(rows, pgx.RowTo[int])
		return err
	})
	return ids
}

func (f *fleet) query(name string, q func(*pgx.Conn) error) {
	f.t.Helper()
	conn, err := f.connect(name)
	must(f.t, err)
	defer conn.Close(context.Background())
	must(f.t, q(conn))
}

func (f *fleet) mustHold(name string, acked []int) {
	f.t.Helper()
	ids := f.present(name)
	for _, id := range acked {
		if _, found := slices.BinarySearch(ids, id); !found {
			f.t.Fatalf("acknowledged transfer %d is missing in %s", id, name)
		}
	}
}

// form makes north-1 primary with north-2 in the sync set and south-1 behind.
func (f *fleet) form() {
	f.t.Helper()
	f.commit(func() { f.primary, f.epoch, f.syncSet = "north-1", 1, []string{"north-1"} })
	for name := range f.centers {
		f.powerOn(name)
	}
	f.awaitGuard("north-1")
	f.must("north-1", agentv1.Verb_VERB_PROMOTE, nil)
	f.query("north-1", func(conn *pgx.Conn) error {
		_, err := conn.Exec(context.Background(), "CREATE TABLE transfer (id int PRIMARY KEY); CREATE TABLE bulk (id int, filler text)")
		return err
	})
	f.waitState("north-2", "Streaming")
	f.waitState("south-1", "Streaming")
	f.grow("north-1", "north-1", "north-2")
	if o := f.observed("north-1"); !o.GetGuarded() || !slices.Equal(o.GetAcknowledges(), []string{"north-2"}) {
		f.t.Fatalf("north-1 is guarded=%v and acknowledges %v", o.GetGuarded(), o.GetAcknowledges())
	}
}

// grow has the primary wait for set, and commits it after that, as the hub does.
func (f *fleet) grow(primary string, set ...string) {
	f.t.Helper()
	f.must(primary, agentv1.Verb_VERB_SET_SYNC_SET, func(d *agentv1.Directive) { d.Role.SyncSet = set })
	f.commit(func() { f.syncSet = set })
}

// leaveUnacknowledgedTail has the primary write more than the frozen standby's
// socket holds, so that its log goes on past what the standby will ever have.
func (f *fleet) leaveUnacknowledgedTail(primary, standby string) {
	f.t.Helper()
	conn, err := f.connect(primary)
	must(f.t, err)
	f.freeze(standby, syscall.SIGSTOP)
	before := f.observed(primary).GetPositionBytes()
	done := make(chan struct{})
	f.t.Cleanup(func() { <-done })
	go func() {
		defer close(done)
		defer conn.Close(context.Background())
		if _, err := conn.Exec(context.Background(), "INSERT INTO bulk SELECT g, repeat(md5(g::text), 30) FROM generate_series(1, 40000) g"); err == nil {
			f.t.Error("a write was acknowledged that the sync set does not have")
		}
	}()
	wait(f.t, 20*time.Second, "a long tail in the log of "+primary, func() bool {
		return f.observed(primary).GetPositionBytes() > before+36<<20
	})
	wait(f.t, 20*time.Second, "the commit waits for the standby", func() bool { return f.waiting(primary) > 0 })
}

// waiting is how many clients wait for a standby: their commits are in the log.
func (f *fleet) waiting(primary string) (clients int) {
	f.t.Helper()
	f.query(primary, func(conn *pgx.Conn) error {
		return conn.QueryRow(context.Background(), "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").Scan(&clients)
	})
	return clients
}

// failOver does what the hub does when the primary is surely gone.
func (f *fleet) failOver(to string) *agentv1.DirectiveResult {
	f.t.Helper()
	f.commit(func() { f.primary, f.epoch, f.fencing = to, f.epoch+1, true })
	f.commit(func() { f.fencing = false })
	// The old sync set stays committed until the promotion is proven.
	r := f.must(to, agentv1.Verb_VERB_PROMOTE, func(d *agentv1.Directive) { d.Role.SyncSet = []string{to} })
	f.commit(func() { f.syncSet = []string{to} })
	return r
}

func TestPowerLossOfThePrimaryLosesNoAcknowledgedTransfer(t *testing.T) {
	f := newFleet(t, "north-1", "north-2", "south-1")
	f.form()
	l := &ledger{}
	stop := f.start(l, "north-1")
	f.leaveUnacknowledgedTail("north-1", "north-2")
	f.powerOff("north-1")
	f.freeze("north-2", syscall.SIGCONT)
	close(stop)
	<-l.done
	r := f.failOver("north-2")
	t.Logf("promotion took %d ms, timeline %d", r.GetElapsedMillis(), r.GetTimeline())
	if r.GetElapsedMillis() > 2000 {
		t.Errorf("promotion took %d ms", r.GetElapsedMillis())
	}
	f.mustHold("north-2", l.acked)
	stop = f.start(l, "north-2")

	t.Run("the old primary returns as replica and its unacknowledged tail is kept aside", func(t *testing.T) {
		f.silence("north-1", false)
		f.powerOn("north-1")
		f.waitState("north-1", "Streaming")
		f.waitState("south-1", "Streaming")
		for _, name := range []string{"north-1", "south-1"} {
			wait(t, 10*time.Second, name+" is on the new timeline", func() bool { return f.observed(name).GetTimeline() == r.GetTimeline() })
		}
		if m := f.observed("north-1").GetMessage(); !strings.Contains(m, "none of them can have been acknowledged") {
			t.Errorf("what was taken back is not told: %q", m)
		}
		f.query("north-1", func(conn *pgx.Conn) error {
			var bulk int
			err := conn.QueryRow(context.Background(), "SELECT count(*) FROM bulk").Scan(&bulk)
			if bulk != 0 {
				t.Errorf("%d rows that nobody acknowledged survived", bulk)
			}
			return err
		})
		if aside, err := filepath.Glob(filepath.Join(f.centers["north-1"].dir, "volume/tripod/aside/*/fork.txt")); err != nil || len(aside) != 1 {
			t.Errorf("kept aside: %v %v", aside, err)
		}
	})
	t.Run("the primary waits for it again, in this order", func(t *testing.T) { f.grow("north-2", "north-2", "north-1") })
	t.Run("without a proof it dies at its deadline with the sessions that were open", func(t *testing.T) {
		f.mustDieAtDeadline(l, "north-2")
	})
	t.Run("with a fresh proof of the same epoch it runs again and waits from its first moment", func(t *testing.T) {
		f.silence("north-2", false)
		f.waitState("north-2", "Running")
		f.query("north-2", func(conn *pgx.Conn) error {
			var names string
			err := conn.QueryRow(context.Background(), "SHOW synchronous_standby_names").Scan(&names)
			if names != `FIRST 1 ("north-1")` {
				t.Errorf("it waits for %q", names)
			}
			return err
		})
		f.waitState("north-1", "Streaming")
		f.mustHold("north-2", l.acked)
	})
	t.Run("an older epoch is refused, a fence kills and proves it", func(t *testing.T) { f.mustFence("north-2") })
	close(stop)
}

// mustDieAtDeadline grants nothing any more and looks at an open session.
func (f *fleet) mustDieAtDeadline(l *ledger, name string) {
	f.t.Helper()
	began := time.Now()
	f.silence(name, true)
	select {
	case <-l.done:
	case <-time.After(ttl + time.Second):
		f.t.Fatal("an open session outlived the lease")
	}
	if lived := time.Since(began); lived > ttl {
		f.t.Errorf("the session lived %v after the last grant, the lease is %v", lived, ttl)
	}
	f.waitState(name, "Stopped")
	if _, err := f.connect(name); err == nil {
		f.t.Error("it still accepts connections")
	}
}

func (f *fleet) mustFence(name string) {
	f.t.Helper()
	r := f.direct(name, agentv1.Verb_VERB_FENCE, 10*time.Second, func(d *agentv1.Directive) { d.Epoch-- })
	if r.GetOutcome() != agentv1.Outcome_OUTCOME_REFUSED {
		f.t.Errorf("a fence of an older epoch: %v %s", r.GetOutcome(), r.GetMessage())
	}
	f.commit(func() { f.primary, f.epoch, f.fencing = "north-1", f.epoch+1, true })
	r = f.must(name, agentv1.Verb_VERB_FENCE, nil)
	if o := r.GetObservation(); o.GetState() != "Fenced" || o.GetRole() == agentv1.Role_ROLE_PRIMARY {
		f.t.Errorf("after the fence it is %v as %v", o.GetState(), o.GetRole())
	}
}

func TestDivergenceThatMayHaveBeenAcknowledgedNeedsAnApproval(t *testing.T) {
	f := newFleet(t, "north-1", "north-2", "south-1")
	f.form()
	f.powerOff("south-1")
	l := &ledger{}
	stop := f.start(l, "north-1")
	close(stop)
	<-l.done
	f.powerOff("north-1")
	f.powerOff("north-2")
	f.comeBack("south-1")
	f.failOver("south-1")

	f.silence("north-1", false)
	f.powerOn("north-1")
	f.waitState("north-1", "Diverged")
	r := f.direct("north-1", agentv1.Verb_VERB_FOLLOW, 20*time.Second, nil)
	if r.GetOutcome() != agentv1.Outcome_OUTCOME_FAILED || r.GetObservation().GetState() != "Diverged" ||
		!strings.Contains(r.GetMessage(), "did not wait for south-1") {
		t.Errorf("following was %v in state %v: %s", r.GetOutcome(), r.GetObservation().GetState(), r.GetMessage())
	}
	t.Log(r.GetMessage())
	f.must("north-1", agentv1.Verb_VERB_DISCARD, nil)
	f.waitState("north-1", "Streaming")
	aside, err := filepath.Glob(filepath.Join(f.centers["north-1"].dir, "volume/tripod/aside/*/PG_VERSION"))
	if err != nil || len(aside) != 1 {
		t.Errorf("kept aside: %v %v", aside, err)
	}
	t.Run("a copy without any data is made afresh", func(t *testing.T) {
		must(t, os.RemoveAll(filepath.Join(f.centers["north-2"].dir, "volume")))
		must(t, os.MkdirAll(filepath.Join(f.centers["north-2"].dir, "volume"), 0o755))
		f.silence("north-2", false)
		f.powerOn("north-2")
		f.waitState("north-2", "Streaming")
	})
}

func TestUnknownDriverIsReportedWithARemedy(t *testing.T) {
	f := newFleet(t, "north-1")
	f.commit(func() { f.primary, f.epoch, f.syncSet = "north-1", 1, nil })
	r := f.direct("north-1", agentv1.Verb_VERB_PROMOTE, time.Second, func(d *agentv1.Directive) { d.Role.Driver = "oracle" })
	if r.GetOutcome() != agentv1.Outcome_OUTCOME_REFUSED || !strings.Contains(r.GetMessage(), "correct spec.driver") {
		t.Errorf("%v: %s", r.GetOutcome(), r.GetMessage())
	}
}
