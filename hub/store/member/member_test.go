package member_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/member"
	"tripod.dev/tripod/hub/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStatusFollowsTheHub(t *testing.T) {
	c := storetest.Start(t, 3, nil)
	leader, follower := c.Leader(), c.Follower()
	c.Eventually("the first incarnation is open everywhere", func() bool {
		return leader.Store.Incarnation() == 1 && follower.Store.Incarnation() == 1
	})
	c.Converged()
	s := member.New(follower.Store).Status(time.Now())
	if s.Name != follower.Name || s.Leader != leader.Name || len(s.Members) != 3 || s.Incarnation != 1 || len(s.Problems) != 0 || s.DatabaseBytes == 0 {
		t.Fatalf("status of a follower: %+v", s)
	}
	for _, m := range s.Members {
		if !m.Voter || m.PeerAddress == "" || m.Leader != (m.Name == leader.Name) {
			t.Fatalf("member %+v", m)
		}
	}
	if err := member.New(follower.Store).Transfer(t.Context(), follower.Name); !errors.Is(err, store.ErrNotLeader) {
		t.Fatalf("a follower moved leadership: %v", err)
	}
	if err := member.New(leader.Store).Transfer(t.Context(), follower.Name); err != nil {
		t.Fatal(err)
	}
	c.Eventually("the follower leads", follower.Store.IsLeader)
	for _, m := range c.Members {
		if m != follower {
			m.Stop()
		}
	}
	c.Eventually("the loss of the quorum is a problem in words", func() bool {
		s := member.New(follower.Store).Status(time.Now())
		return len(s.Problems) == 1 && strings.Contains(s.Problems[0], "of 3 voters a majority must run")
	})
}
