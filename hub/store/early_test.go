package store

import (
	"errors"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// slowDisk is a log whose syncs wait for release, on a member of three voters.
func slowDisk(t *testing.T, leads *bool) (r *recentLog, d *disk, release chan error) {
	t.Helper()
	release = make(chan error)
	d, err := openDisk(Config{DataDir: t.TempDir(), Name: "m", Logger: slog.New(slog.DiscardHandler), Fail: func(p Point) error {
		if p == BeforeLogAppend {
			return <-release
		}
		return nil
	}}.WithDefaults())
	if err != nil {
		t.Fatal(err)
	}
	d.recent.early.standing.Store(&standing{leads: func() bool { return *leads }, voters: func() int { return 3 }})
	return d.recent, d, release
}

func entries(from, to uint64) (all []*raft.Log) {
	for i := from; i <= to; i++ {
		all = append(all, &raft.Log{Index: i, Term: 1, Data: []byte{byte(i)}})
	}
	return all
}

// background runs f; ended says whether it has returned by now, and how.
func background(f func() error) (ended func() (bool, error)) {
	result := make(chan error, 1)
	go func() { result <- f() }()
	return func() (bool, error) {
		synctest.Wait()
		select {
		case err := <-result:
			return true, err
		default:
			return false, nil
		}
	}
}

func TestALeaderReadsItsEntriesWhileTheyAreWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leads := true
		r, d, release := slowDisk(t, &leads)
		if err := r.StoreLogs(entries(1, 2)); err != nil {
			t.Fatal(err)
		}
		var got raft.Log
		if err := r.GetLog(2, &got); err != nil || got.Index != 2 {
			t.Fatalf("the leader reads entry %d, %v, want 2", got.Index, err)
		}
		stored := background(func() error { return r.early.await(2, nil) })
		if ended, _ := stored(); ended {
			t.Error("entry 2 is said to be on disk while it is written")
		}
		next := background(func() error { return r.StoreLogs(entries(3, 3)) })
		if ended, _ := next(); ended {
			t.Error("a second write is taken while the first is under way")
		}
		release <- nil
		if ended, err := stored(); !ended || err != nil {
			t.Errorf("entry 2 is written: %v, %v", ended, err)
		}
		if ended, err := next(); !ended || err != nil {
			t.Errorf("the next write is taken: %v, %v", ended, err)
		}
		release <- nil
		if err := d.close(); err != nil {
			t.Error(err)
		}
	})
}

// What a follower finds in its log it acknowledges.
func TestAFormerLeaderReadsItsEntriesWhenTheyAreOnDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leads := true
		r, d, release := slowDisk(t, &leads)
		if err := r.StoreLogs(entries(1, 1)); err != nil {
			t.Fatal(err)
		}
		leads = false
		calls := map[string]func() (bool, error){
			"GetLog":      background(func() error { return r.GetLog(1, new(raft.Log)) }),
			"StoreLogs":   background(func() error { return r.StoreLogs(entries(2, 2)) }),
			"DeleteRange": background(func() error { return r.DeleteRange(1, 1) }),
		}
		for name, ended := range calls {
			if now, err := ended(); now {
				t.Errorf("%s returns %v before the entry is on disk", name, err)
			}
		}
		release <- nil // entry 1
		release <- nil // entry 2
		for name, ended := range calls {
			if now, err := ended(); !now || err != nil && name != "DeleteRange" && name != "GetLog" { // one may come after the other
				t.Errorf("%s has returned: %v, %v", name, now, err)
			}
		}
		if err := d.close(); err != nil {
			t.Error(err)
		}
	})
}

func TestWhatCannotBeHeldBackIsWrittenFirst(t *testing.T) {
	configuration := []*raft.Log{{Index: 1, Type: raft.LogConfiguration}}
	tests := map[string]struct {
		leads   bool
		voters  int
		entries []*raft.Log
		want    bool
	}{
		"a leader of three":                    {true, 3, entries(1, 2), true},
		"a leader of two":                      {true, 2, entries(1, 2), true},
		"a follower":                           {false, 3, entries(1, 2), false},
		"the only voter":                       {true, 1, entries(1, 2), false},
		"an entry that changes who is counted": {true, 3, configuration, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var e early
			if e.may(test.entries) {
				t.Error("before Raft has started nothing may be early")
			}
			e.standing.Store(&standing{leads: func() bool { return test.leads }, voters: func() int { return test.voters }})
			if got := e.may(test.entries); got != test.want {
				t.Errorf("may be stored early: %v, want %v", got, test.want)
			}
		})
	}
}

func TestAfterAFailedWriteNothingIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leads := true
		r, d, release := slowDisk(t, &leads)
		var told error
		r.fail = func(err error) { told = err }
		if err := r.StoreLogs(entries(1, 1)); err != nil {
			t.Fatal(err)
		}
		broken := errors.New("broken")
		release <- broken
		if err := r.early.await(1, nil); !errors.Is(err, broken) {
			t.Errorf("waiting for the entry returns %v, want %v", err, broken)
		}
		if err := r.StoreLogs(entries(2, 2)); !errors.Is(err, broken) || !errors.Is(told, broken) {
			t.Errorf("the next entry gets %v, the member %v, want %v", err, told, broken)
		}
		if err := d.close(); err != nil {
			t.Error(err)
		}
	})
}

// TestAcknowledgementsWaitForTheOwnDisk: a follower's answer is handed to Raft when
// the entries are on the leader's own disk, through the pipeline and without.
func TestAcknowledgementsWaitForTheOwnDisk(t *testing.T) {
	newMember := func() *raft.NetworkTransport {
		m, err := raft.NewTCPTransport("127.0.0.1:0", nil, 3, 10*time.Second, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	asked, stored := make(chan uint64), make(chan struct{})
	leader, follower := newConfirmingTransport(newMember(), func(index uint64, stop <-chan struct{}) error {
		asked <- index
		<-stored
		return nil
	}), newMember()
	stop, answering := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(answering)
		for {
			select {
			case rpc := <-follower.Consumer():
				rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil)
			case <-stop:
				return
			}
		}
	}()
	append2 := &raft.AppendEntriesRequest{Term: 1, Entries: []*raft.Log{{Index: 6}, {Index: 7}}}
	p, err := leader.AppendEntriesPipeline("follower", follower.LocalAddr())
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan string, 2)
	if _, err := p.AppendEntries(append2, new(raft.AppendEntriesResponse)); err != nil {
		t.Fatal(err)
	}
	go func() {
		<-p.Consumer()
		answered <- "pipeline"
	}()
	go func() {
		if err := leader.AppendEntries("follower", follower.LocalAddr(), append2, new(raft.AppendEntriesResponse)); err != nil {
			t.Error(err)
		}
		answered <- "append"
	}()
	for range 2 {
		select {
		case index := <-asked:
			if index != 7 {
				t.Errorf("it waits for entry %d, want 7", index)
			}
		case who := <-answered:
			t.Fatalf("the %s handed its answer on although the entries are not on the own disk", who)
		case <-time.After(10 * time.Second):
			t.Fatal("nobody waits for the own disk")
		}
	}
	select {
	case who := <-answered:
		t.Errorf("the %s handed its answer on although the entries are not on the own disk", who)
	default:
	}
	close(stored)
	_, _ = <-answered, <-answered
	close(stop)
	<-answering
	_, _, _ = p.Close(), leader.NetworkTransport.Close(), follower.Close()
}
