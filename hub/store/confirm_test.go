package store

import (
	"io"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	raftlogv1 "tripod.dev/tripod/proto/raftlog/v1"
)

// TestOldAcknowledgementConfirmsNothing is the case of a leader that stood still
// with an answer in its socket: what was sent before the read began says nothing
// about who leads after.
func TestOldAcknowledgementConfirmsNothing(t *testing.T) {
	read := time.Now()
	before, after := read.Add(-time.Millisecond), read.Add(time.Millisecond)
	three := []raft.Server{{ID: "a"}, {ID: "b"}, {ID: "c"}}
	tests := map[string]struct {
		servers []raft.Server
		acks    map[raft.ServerID]ack
		want    bool
	}{
		"alone it needs nobody":                        {three[:1], nil, true},
		"of three it needs one other":                  {three, nil, false},
		"one that was asked after the read is enough":  {three, map[raft.ServerID]ack{"b": {term: 7, sent: after}}, true},
		"any number asked before it is not":            {three, map[raft.ServerID]ack{"b": {term: 7, sent: before}, "c": {term: 7, sent: before}}, false},
		"one of another term is not":                   {three, map[raft.ServerID]ack{"b": {term: 6, sent: after}}, false},
		"one that has no vote is not":                  {[]raft.Server{{ID: "a"}, {ID: "b"}, {ID: "c", Suffrage: raft.Nonvoter}}, map[raft.ServerID]ack{"c": {term: 7, sent: after}}, false},
		"without a vote of its own two others are due": {[]raft.Server{{ID: "b"}, {ID: "c"}, {ID: "d"}}, map[raft.ServerID]ack{"b": {term: 7, sent: after}}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			transport := newConfirmingTransport(nil, nil)
			if test.acks != nil {
				transport.acks = test.acks
			}
			if got := transport.confirmed("a", test.servers, 7, read); got != test.want {
				t.Errorf("confirmed %v, want %v", got, test.want)
			}
		})
	}
}

// TestAMemberVouchesForTheLeaderItFollows: a member of another term may have voted for
// another leader, and one of another history never counts.
func TestAMemberVouchesForTheLeaderItFollows(t *testing.T) {
	voters := func(ids ...raft.ServerID) (servers []raft.Server) {
		for _, id := range ids {
			servers = append(servers, raft.Server{ID: id})
		}
		return servers
	}
	three := voters("a", "b", "c")
	said := func(member string, term, cluster, incarnation uint64) *raftlogv1.Allegiance {
		return &raftlogv1.Allegiance{Member: member, Term: term, ClusterId: cluster, Incarnation: incarnation}
	}
	tests := map[string]struct {
		by      *raftlogv1.Allegiance
		servers []raft.Server
		want    bool
	}{
		"of three, one that follows is enough":      {said("b", 7, 1, 1), three, true},
		"one of a later term is not":                {said("b", 8, 1, 1), three, false},
		"one of an earlier term is not":             {said("b", 6, 1, 1), three, false},
		"one of an older incarnation is not":        {said("b", 7, 1, 0), three, false},
		"one of another hub is not":                 {said("b", 7, 2, 1), three, false},
		"an older program, which says nothing":      {nil, three, false},
		"one that is no member is not":              {said("d", 7, 1, 1), three, false},
		"one that has no vote is not":               {said("d", 7, 1, 1), append(voters("a", "b", "c"), raft.Server{ID: "d", Suffrage: raft.Nonvoter}), false},
		"the leader's own word counts once":         {said("a", 7, 1, 1), three, false},
		"of five, one is not enough":                {said("b", 7, 1, 1), voters("a", "b", "c", "d", "e"), false},
		"of two, one is":                            {said("b", 7, 1, 1), voters("a", "b"), true},
		"a leader without a vote needs two of them": {said("b", 7, 1, 1), voters("b", "c", "d"), false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := suffices(test.by, "a", test.servers, 7, lineage{1, 1}); got != test.want {
				t.Errorf("suffices %v, want %v", got, test.want)
			}
		})
	}
}

func TestHeartbeatsAreToldFromReplication(t *testing.T) {
	tests := map[string]struct {
		args raft.AppendEntriesRequest
		want bool
	}{
		"no log position and no entries is a heartbeat": {raft.AppendEntriesRequest{Term: 3}, true},
		"a commit index is replication":                 {raft.AppendEntriesRequest{LeaderCommitIndex: 3}, false},
		"a log position is replication":                 {raft.AppendEntriesRequest{PrevLogEntry: 3, PrevLogTerm: 1}, false},
		"entries are replication":                       {raft.AppendEntriesRequest{Entries: []*raft.Log{{}}}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := isHeartbeat(&test.args); got != test.want {
				t.Errorf("heartbeat %v, want %v", got, test.want)
			}
		})
	}
}

// TestAFullPipelineEndsWithTheLeadership: nobody takes the answers, so that
// sending waits once as many as may be are under way.
func TestAFullPipelineEndsWithTheLeadership(t *testing.T) {
	for name, end := range map[string]func(*confirmingTransport){
		"it stops leading": (*confirmingTransport).endWaits, "it shuts down": (*confirmingTransport).shut,
	} {
		t.Run(name, func(t *testing.T) {
			member := func() *raft.NetworkTransport {
				m, err := raft.NewTCPTransport("127.0.0.1:0", nil, 3, time.Second, io.Discard)
				if err != nil {
					t.Fatal(err)
				}
				return m
			}
			leader, follower := newConfirmingTransport(member(), func(uint64, <-chan struct{}) error { return nil }), member()
			stop, answering := make(chan struct{}), make(chan struct{})
			answered := make(chan struct{}, 1)
			go func() {
				defer close(answering)
				for {
					select {
					case rpc := <-follower.Consumer():
						rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil)
						select {
						case answered <- struct{}{}:
						default:
						}
					case <-stop:
						return
					}
				}
			}()
			p, err := leader.AppendEntriesPipeline("follower", follower.LocalAddr())
			if err != nil {
				t.Fatal(err)
			}
			sent := make(chan error, 1)
			go func() {
				for {
					if _, err := p.AppendEntries(&raft.AppendEntriesRequest{Term: 1}, &raft.AppendEntriesResponse{}); err != nil {
						sent <- err
						return
					}
				}
			}()
			<-answered
			end(leader)
			select {
			case <-sent:
			case <-time.After(10 * time.Second):
				t.Error("sending still waits")
			}
			close(stop)
			<-answering
			_, _ = leader.NetworkTransport.Close(), follower.Close()
		})
	}
}
