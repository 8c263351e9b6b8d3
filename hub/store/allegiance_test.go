package store

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/hashicorp/raft"

	raftlogv1 "tripod.dev/tripod/proto/raftlog/v1"
)

// electorate is what Raft keeps about terms: a member votes once in a term, for which it
// enters it first, and who has a majority of votes leads.
type electorate struct {
	terms   []uint64
	leaders map[uint64]int
}

// elect lets a candidate stand, with those who hear of it.
func (e *electorate) elect(candidate int, hear []int) {
	term := e.terms[candidate] + 1
	e.terms[candidate] = term
	votes := 1
	for _, voter := range hear {
		if voter != candidate && e.terms[voter] < term {
			e.terms[voter] = term
			votes++
		}
	}
	if votes > len(e.terms)/2 {
		e.leaders[term] = candidate
	}
}

// turmoil is some elections, or none.
func (e *electorate) turmoil(random *rand.Rand) {
	for range random.IntN(4) {
		e.elect(random.IntN(len(e.terms)), random.Perm(len(e.terms))[:random.IntN(len(e.terms)+1)])
	}
}

// TestNobodyElseLedBeforeAVouchedRead: elections happen between all steps of a read
// through a follower. If it is answered, no later leader had been elected when it
// began, so that nothing that such a one acknowledged can be missing.
func TestNobodyElseLedBeforeAVouchedRead(t *testing.T) {
	vouched := 0
	for seed := range uint64(200_000) {
		random := rand.New(rand.NewPCG(seed, 0))
		n := 2 + random.IntN(4)
		e := &electorate{terms: make([]uint64, n), leaders: map[uint64]int{}}
		servers := make([]raft.Server, n)
		for i := range servers {
			servers[i].ID = raft.ServerID(fmt.Sprint(i))
		}
		e.turmoil(random)
		if len(e.leaders) == 0 {
			continue
		}
		// The leader that is asked may not have heard of its successors.
		led := slices.Sorted(maps.Keys(e.leaders))
		term, newest := led[random.IntN(len(led))], led[len(led)-1] // the read begins
		leader, follower := e.leaders[term], random.IntN(n)
		e.turmoil(random)
		by := &raftlogv1.Allegiance{Member: fmt.Sprint(follower), Term: e.terms[follower]}
		e.turmoil(random)
		if !suffices(by, servers[leader].ID, servers, term, lineage{}) || e.terms[leader] != term {
			continue
		}
		vouched++
		if newest > term {
			t.Fatalf("seed %d: of %d members, the leader of term %d answers member %d, and term %d had a leader when the read began", seed, n, term, follower, newest)
		}
	}
	if vouched < 1000 {
		t.Errorf("only %d reads were answered: this shows nothing", vouched)
	}
}
