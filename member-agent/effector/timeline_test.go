package effector_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tripod.dev/tripod/failover/driver/postgresql/wal"
	"tripod.dev/tripod/failover/guard"
	"tripod.dev/tripod/failover/guard/volume"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

const segment = 16 << 20

// fill writes until the log of a primary ends in the first part of a segment, so
// that what is written next is in the same one.
func (f *fleet) fill(name string) {
	f.t.Helper()
	for range 64 {
		f.query(name, func(conn *pgx.Conn) error {
			_, err := conn.Exec(context.Background(), "INSERT INTO bulk SELECT g, repeat(md5(g::text), 30) FROM generate_series(1, 1000) g")
			return err
		})
		at := f.position(name) % segment
		if at > segment/16 && at < segment/4 {
			return
		}
	}
	f.t.Fatal("the log never ended in the first part of a segment")
}

// position asks the copy itself where its log ends.
func (f *fleet) position(name string) int64 {
	f.t.Helper()
	var at int64
	f.query(name, func(conn *pgx.Conn) error {
		return conn.QueryRow(context.Background(), `SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn()
			ELSE pg_current_wal_flush_lsn() END - '0/0'::pg_lsn)::bigint`).Scan(&at)
	})
	return at
}

// tail has a client write to a primary whose standby is gone: it is told nothing.
func (f *fleet) tail(primary string) {
	f.t.Helper()
	conn, err := f.connect(primary)
	must(f.t, err)
	done := make(chan struct{})
	f.t.Cleanup(func() { <-done })
	go func() {
		defer close(done)
		defer conn.Close(context.Background())
		_, _ = conn.Exec(context.Background(), "INSERT INTO bulk SELECT g, repeat(md5(g::text), 30) FROM generate_series(1, 6000) g")
	}()
}

// A remote copy that had more of the old timeline than the copy that was promoted
// says to PostgreSQL that it has flushed what it never was sent, whenever it tries
// to stream from its old address again. Whoever believes that counts it as a
// standby that holds writes of which it has not seen one.
func TestAStandbyAheadOnAnOlderTimelineIsNeverCounted(t *testing.T) {
	f := newFleet(t, "north-1", "north-2", "south-1")
	f.form()
	f.fill("north-1")
	f.powerOff("north-2")
	fork := f.position("north-1")
	f.tail("north-1")
	wait(t, 20*time.Second, "the remote copy is ahead", func() bool { return f.position("south-1") > fork+5<<20 })
	ahead := f.position("south-1")
	if fork/segment != ahead/segment {
		t.Fatalf("%x and %x are not in one segment", fork, ahead)
	}
	// Nobody reaches the remote agent from now on: its copy goes on trying the address
	// that it knows.
	f.silence("south-1", true)
	f.powerOff("north-1")
	f.comeBack("north-2")
	f.failOver("north-2")
	f.silence("north-1", false)
	f.powerOn("north-1")
	f.waitState("north-1", "Streaming")
	f.powerOff("north-2")
	f.failOver("north-1")
	if at := f.position("north-1"); at >= ahead {
		t.Fatalf("the new timeline is at %x already, and the remote copy at %x", at, ahead)
	}

	for range 3 {
		r := f.direct("north-1", agentv1.Verb_VERB_SET_SYNC_SET, 8*time.Second, func(d *agentv1.Directive) {
			d.Role.SyncSet = []string{"north-1", "south-1"}
		})
		if r.GetOutcome() == agentv1.Outcome_OUTCOME_DONE {
			t.Fatalf("a copy on timeline 1 was taken for one that holds the log of timeline 3: %v", r.GetObservation())
		}
		t.Log(r.GetMessage())
	}
}

// A replica whose receiver has just found a new timeline has its history and a file
// for its log, in which nothing has arrived, or a piece of the log before the fork.
// Stopped in that moment it holds no more than before, and follows the new primary as
// if it had not looked.
func TestAFileOfATimelineIsNotItsLog(t *testing.T) {
	t.Run("an empty one", func(t *testing.T) {
		getsOntoATimeline(t, func([]byte, wal.LSN) []byte { return make([]byte, segment) })
	})
	t.Run("one with what comes before the fork", func(t *testing.T) {
		getsOntoATimeline(t, func(log []byte, fork wal.LSN) []byte {
			return append(slices.Clone(log[:fork%segment]), make([]byte, segment-fork%segment)...)
		})
	})
}

// The same one, stopped a moment later, holds a part of the new timeline's log. Who
// began that timeline it was never told, and its log has to tell.
func TestAPieceOfATimelineTellsWhoseItIs(t *testing.T) {
	getsOntoATimeline(t, func(log []byte, _ wal.LSN) []byte { return log })
}

// getsOntoATimeline puts a file of the new timeline into a remote copy that nobody has
// made to follow the new primary, and has it do so.
func getsOntoATimeline(t *testing.T, received func(log []byte, fork wal.LSN) []byte) {
	t.Helper()
	f := newFleet(t, "north-1", "north-2", "south-1")
	f.form()
	f.fill("north-1")
	at := f.position("north-1")
	wait(t, 10*time.Second, "all copies hold the same", func() bool {
		return f.position("south-1") >= at && f.position("south-1") == f.position("north-1") && f.position("north-2") == f.position("north-1")
	})
	f.powerOff("south-1")
	f.powerOff("north-1")
	f.failOver("north-2")
	log := func(name string) string { return filepath.Join(f.centers[name].dir, "volume/data/pg_wal") }
	owner, err := os.Stat(log("south-1"))
	must(t, err)
	history, file := "00000002.history", fmt.Sprintf("00000002%08X%08X", at/segment/256, at/segment%256)
	text, err := os.ReadFile(filepath.Join(log("north-2"), history))
	must(t, err)
	came, err := wal.ParseHistory(string(text), 2)
	must(t, err)
	whole, err := os.ReadFile(filepath.Join(log("north-2"), file))
	must(t, err)
	for name, content := range map[string][]byte{history: text, file: received(whole, came.End(1))} {
		path := filepath.Join(log("south-1"), name)
		must(t, os.WriteFile(path, content, 0o600))
		must(t, os.Chown(path, int(owner.Sys().(*syscall.Stat_t).Uid), int(owner.Sys().(*syscall.Stat_t).Gid)))
	}

	at = f.position("north-2")
	f.silence("south-1", false)
	f.powerOn("south-1")
	wait(t, 30*time.Second, "the copy is sent what the new primary wrote", func() bool { return f.received("south-1") >= at })
}

// received is how far a replica has been sent the log since it was started, 0 while it
// is not or cannot be asked.
func (f *fleet) received(name string) (at int64) {
	conn, err := f.connect(name)
	if err != nil {
		return 0
	}
	defer conn.Close(context.Background())
	if err := conn.QueryRow(context.Background(), "SELECT coalesce((pg_last_wal_receive_lsn() - '0/0'::pg_lsn)::bigint, 0)").Scan(&at); err != nil {
		return 0
	}
	return at
}

// Two copies of one position that are promoted apart, each without knowing of the
// other, both begin timeline 2 at the same place. PostgreSQL cannot tell the two
// apart, and would let a replica of the one go on with the log of the other.
func TestTwoPromotionsToOneTimelineNumberAreToldApart(t *testing.T) {
	f := newFleet(t, "north-1", "north-2", "south-1")
	f.form()
	f.twoOfOneNumber()
	history := func(name string) string {
		b, err := os.ReadFile(filepath.Join(f.centers[name].dir, "volume/data/pg_wal/00000002.history"))
		must(t, err)
		return string(b)
	}
	if one, other := history("north-1"), history("south-1"); one != other {
		t.Fatalf("the two were promoted at different positions: %q and %q", one, other)
	}

	f.silence("north-1", false)
	f.powerOn("north-1")
	f.waitState("north-1", "Diverged")
	if m := f.observed("north-1").GetMessage(); !strings.Contains(m, "was begun by north-2") {
		t.Errorf("what is the matter is not told: %q", m)
	}
	f.must("north-1", agentv1.Verb_VERB_DISCARD, nil)
	f.waitState("north-1", "Streaming")
	f.query("north-1", func(conn *pgx.Conn) error {
		var of string
		err := conn.QueryRow(context.Background(), "SELECT of FROM owner").Scan(&of)
		if of != "south-1" {
			t.Errorf("the copy holds what %q wrote", of)
		}
		return err
	})
}

// twoOfOneNumber promotes north-2, which north-1 then follows, and south-1, which
// has seen nothing of it, and leaves only south-1 with power.
func (f *fleet) twoOfOneNumber() {
	f.t.Helper()
	owned := func(name string) {
		f.query(name, func(conn *pgx.Conn) error {
			_, err := conn.Exec(context.Background(), "CREATE TABLE owner AS SELECT '"+name+"' AS of")
			return err
		})
	}
	at := f.position("north-1")
	wait(f.t, 10*time.Second, "all copies hold the same", func() bool {
		return f.position("south-1") >= at && f.position("south-1") == f.position("north-1") && f.position("north-2") == f.position("north-1")
	})
	f.powerOff("north-1")
	f.powerOff("south-1")
	f.failOver("north-2")
	owned("north-2")
	f.silence("north-1", false)
	f.powerOn("north-1")
	f.waitState("north-1", "Streaming")
	at = f.position("north-2")
	wait(f.t, 10*time.Second, "the replica has what was written", func() bool { return f.position("north-1") >= at })
	f.powerOff("north-2")
	f.powerOff("north-1")
	f.comeBack("south-1")
	f.failOver("south-1")
	owned("south-1")
}

// A replica whose agent is away connects by itself to its old address when that is the
// primary's again, and so gets onto a timeline of which nobody has told it who began it.
// When it is stopped then, the log itself has to tell whether it is the primary's.
func TestAReplicaThatReconnectedByItselfIsKnownByItsLog(t *testing.T) {
	t.Run("the primary's", func(t *testing.T) {
		f := newFleet(t, "north-1", "north-2", "south-1")
		f.form()
		f.reconnected("south-1")
		f.silence("south-1", false)
		f.powerOn("south-1")
		f.waitState("south-1", "Streaming")
	})
	t.Run("another one of that number", func(t *testing.T) {
		f := newFleet(t, "north-1", "north-2", "south-1", "south-2")
		f.form()
		f.waitState("south-2", "Streaming")
		f.reconnected("south-1")
		f.powerOff("north-1")
		f.comeBack("south-2")
		f.failOver("south-2")
		f.onTimeline("south-2", 3)
		f.silence("south-1", false)
		f.powerOn("south-1")
		f.waitState("south-1", "Diverged")
		if m := f.observed("south-1").GetMessage(); !strings.Contains(m, "timeline 3 does not begin as the primary's") {
			t.Errorf("what is the matter is not told: %q", m)
		}
	})
}

// reconnected has north-2 and then north-1 again promoted, while the agent of replica
// is away, and stops the replica when it has got onto north-1's new timeline by itself.
// All others have log up to there, and are without power.
func (f *fleet) reconnected(replica string) {
	f.t.Helper()
	level := func(primary string) {
		f.t.Helper()
		wait(f.t, 20*time.Second, "all copies hold the same", func() bool {
			at := f.position(primary)
			for name, c := range f.centers {
				if c.guard != nil && name != replica && name != primary && f.received(name) != at {
					return false
				}
			}
			return f.position(primary) == at
		})
	}
	level("north-1")
	f.silence(replica, true)
	f.powerOff("north-1")
	f.failOver("north-2")
	f.silence("north-1", false)
	f.powerOn("north-1")
	for name := range f.centers {
		if name != replica && name != "north-2" {
			f.waitState(name, "Streaming")
			f.onTimeline(name, 2)
		}
	}
	level("north-2")
	for name := range f.centers {
		if name != replica && name != "north-1" {
			f.powerOff(name)
		}
	}
	f.failOver("north-1")
	f.onTimeline(replica, 3)
	at := f.position("north-1")
	wait(f.t, 20*time.Second, replica+" has log of the new timeline", func() bool { return f.received(replica) >= at })
	f.powerOff(replica)
	wait(f.t, 10*time.Second, "the agent notices that "+replica+" is gone", func() bool { return !f.observed(replica).GetGuardKnown() })
	f.forget(replica, 3)
}

// forget takes out of a volume's memory who began a timeline, as if the copy had been
// stopped before anybody could note it.
func (f *fleet) forget(name string, timeline int64) {
	f.t.Helper()
	var v *volume.Volume
	wait(f.t, 10*time.Second, "the guard of "+name+" has let go of its volume", func() bool {
		var err error
		v, err = volume.Open(filepath.Join(f.centers[name].dir, "volume"))
		return err == nil
	})
	defer func() { must(f.t, v.Close()) }()
	var memory guard.Memory
	must(f.t, v.Load(&memory))
	delete(memory.Origins, timeline)
	if len(memory.Origins) == 0 {
		f.t.Fatalf("%s remembers nothing of the timelines before %d", name, timeline)
	}
	must(f.t, v.Save(memory))
}

func (f *fleet) onTimeline(name string, timeline int64) {
	f.t.Helper()
	wait(f.t, 20*time.Second, fmt.Sprintf("%s is on timeline %d", name, timeline), func() bool {
		return f.observed(name).GetTimeline() == timeline
	})
}
