package store

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// TestAFollowerVotesByItsLogOnceTheLeaderIsSilent: its own timer is an hour, so that
// it does not stand itself while it is asked.
func TestAFollowerVotesByItsLogOnceTheLeaderIsSilent(t *testing.T) {
	for name, test := range map[string]struct {
		silence   time.Duration
		lastIndex uint64
		want      bool
	}{
		"the leader is heard":                           {time.Hour, 10, false},
		"the leader is silent":                          {time.Nanosecond, 10, true},
		"it is silent, but the candidate lacks entries": {time.Nanosecond, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			r, others := follower(t, time.Hour, test.silence)
			header := func(id string) raft.RPCHeader {
				return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(id), Addr: []byte(id)}
			}
			word := raft.AppendEntriesRequest{RPCHeader: header("a"), Term: 1}
			if err := others.AppendEntries("b", "b", &word, &raft.AppendEntriesResponse{}); err != nil {
				t.Fatal(err)
			}
			if leader, _ := r.LeaderWithID(); leader != "a" {
				t.Fatalf("it follows %q, want a", leader)
			}
			pre := raft.RequestPreVoteRequest{RPCHeader: header("c"), Term: 2, LastLogIndex: test.lastIndex, LastLogTerm: 1}
			var maybe raft.RequestPreVoteResponse
			if err := others.RequestPreVote("b", "b", &pre, &maybe); err != nil {
				t.Fatal(err)
			}
			request := raft.RequestVoteRequest{RPCHeader: header("c"), Term: 2, LastLogIndex: test.lastIndex, LastLogTerm: 1}
			var vote raft.RequestVoteResponse
			if err := others.RequestVote("b", "b", &request, &vote); err != nil {
				t.Fatal(err)
			}
			if maybe.Granted != test.want || vote.Granted != test.want {
				t.Errorf("pre-vote %t and vote %t, want both %t", maybe.Granted, vote.Granted, test.want)
			}
			if string(pre.Addr) != "c" || request.LeadershipTransfer {
				t.Error("what the candidate sent was changed")
			}
		})
	}
}

// TestALeaderIsNotTalkedOutOfItsOffice: that it has heard no leader for long says
// nothing about itself.
func TestALeaderIsNotTalkedOutOfItsOffice(t *testing.T) {
	_, other := raft.NewInmemTransport("a")
	r := inMemory(t, 10*time.Millisecond, time.Nanosecond, other, "b")
	if leads := <-r.LeaderCh(); !leads {
		t.Fatal("it does not lead")
	}
	b := &ballots{heartbeat: time.Nanosecond}
	b.raft.Store(r)
	if got := b.silentLeader(); got != "" {
		t.Errorf("it takes %q for a silent leader, want none", got)
	}
}
