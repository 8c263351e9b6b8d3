package store

import (
	"log/slog"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func TestTurnsAreBetweenOneAndTwoTimeoutsAndApart(t *testing.T) {
	const heartbeat = 500 * time.Millisecond
	for _, n := range []int{1, 2, 3, 5, 7, 9} {
		end := heartbeat
		for place := range n {
			first, last := turn(heartbeat, place, n, 0), turn(heartbeat, place, n, 0.9999)
			if first < end || last >= 2*heartbeat {
				t.Errorf("%d voters, place %d: the turn is from %s to %s, want after %s and before %s", n, place, first, last, end, 2*heartbeat)
			}
			// The first one leaves the leader's words the time in which they arrive.
			if apart := first - end; apart < heartbeat/time.Duration(2*max(turns, n+1)) {
				t.Errorf("%d voters, place %d: only %s after the turn before", n, place, apart)
			}
			end = last
		}
	}
}

func TestPlacesAreOfVotersByName(t *testing.T) {
	servers := []raft.Server{{ID: "c"}, {ID: "a"}, {ID: "b", Suffrage: raft.Nonvoter}, {ID: "d"}}
	for id, want := range map[raft.ServerID]int{"a": 0, "c": 1, "d": 2, "b": -1, "x": -1} {
		if got, voters := place(id, servers); got != want || voters != 3 {
			t.Errorf("%s is at place %d of %d, want %d of 3", id, got, voters, want)
		}
	}
}

// The time-out is so long that only the end of the patience can begin an election.
func TestAFollowerStandsWhenItsPatienceEnds(t *testing.T) {
	r, _ := follower(t, time.Hour, time.Hour)
	p := &patience{self: "b", heartbeat: time.Hour, raft: r, log: slog.New(slog.DiscardHandler)}
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for r.State() != raft.Candidate {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("it is still %s", r.State())
		}
	}
}

func TestAFollowerHasPatienceUntilItsTurn(t *testing.T) {
	r, leader := follower(t, time.Hour, time.Hour)
	p := &patience{self: "b", heartbeat: time.Hour, raft: r, log: slog.New(slog.DiscardHandler)}
	if wait := p.look(time.Now().Add(24*time.Hour), 0); wait != time.Hour {
		t.Errorf("who never heard a leader looks again after %s, want an hour", wait)
	}
	word := raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("a"), Addr: []byte("a")}, Term: 1}
	if err := leader.AppendEntries("b", "b", &word, &raft.AppendEntriesResponse{}); err != nil {
		t.Fatal(err)
	}
	heard := r.LastContact()
	own := turn(time.Hour, 1, 3, 0)
	for passed, want := range map[time.Duration]time.Duration{0: own, time.Hour: own - time.Hour, own - 1: 1, own: time.Hour} {
		if wait := p.look(heard.Add(passed), 0); wait != want {
			t.Errorf("%s after the leader's word it looks again after %s, want %s", passed, wait, want)
		}
	}
	// Raft looks at its own clock, on which the leader's word is new.
	if got := r.Stats()["term"]; got != "1" {
		t.Errorf("it stood for election in term %s although it had heard the leader", got)
	}
}

// follower is member b of three, which asks for the others' votes in vain, and the
// transport of the others. It gives ballots by its log after silence.
func follower(t *testing.T, heartbeat, silence time.Duration) (*raft.Raft, *raft.InmemTransport) {
	t.Helper()
	_, other := raft.NewInmemTransport("a")
	r := inMemory(t, heartbeat, silence, other, "a", "b", "c")
	return r, other
}

// inMemory runs member b among members.
func inMemory(t *testing.T, heartbeat, silence time.Duration, other *raft.InmemTransport, members ...raft.ServerID) *raft.Raft {
	t.Helper()
	_, own := raft.NewInmemTransport("b")
	other.Connect("b", own)
	c := raft.DefaultConfig()
	c.LocalID, c.HeartbeatTimeout, c.ElectionTimeout, c.Logger = "b", heartbeat, heartbeat+1, raftLogTo(slog.New(slog.DiscardHandler))
	c.LeaderLeaseTimeout = min(c.LeaderLeaseTimeout, heartbeat)
	logs, snapshots := raft.NewInmemStore(), raft.NewInmemSnapshotStore()
	var all raft.Configuration
	for _, id := range members {
		all.Servers = append(all.Servers, raft.Server{ID: id, Address: raft.ServerAddress(id)})
	}
	if err := raft.BootstrapCluster(c, logs, logs, snapshots, own, all); err != nil {
		t.Fatal(err)
	}
	ballots := newBallots(own, silence)
	r, err := raft.NewRaft(c, &raft.MockFSM{}, logs, logs, snapshots, ballots)
	if err != nil {
		t.Fatal(err)
	}
	ballots.raft.Store(r)
	t.Cleanup(func() {
		if err := r.Shutdown().Error(); err != nil {
			t.Error(err)
		}
	})
	return r
}
