package store_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/etcdapi"
	"tripod.dev/tripod/hub/store/storetest"
)

// programs says which level the program of each member understands when it starts
// next.
type programs map[string]uint32

func (p programs) configure(s *store.Config, _ *etcdapi.Config) {
	s.Understands = p[s.Name]
	s.Version = fmt.Sprintf("v0.%d", s.Understands)
}

// install ends the member and starts it with a program that understands level.
func (p programs) install(m *storetest.Member, level uint32) error {
	m.Stop()
	p[m.Name] = level
	return m.TryStart()
}

// waiting waits until the leader has found that the next level waits for text, which
// it finds only after it has asked every member.
func waiting(c *storetest.Cluster, text string) {
	c.Eventually("the leader waits for: "+text, func() bool {
		return strings.Contains(c.Leader().Store.Membership().LevelWaits(), text)
	})
}

func levelEverywhere(c *storetest.Cluster, level uint32) {
	c.Eventually(fmt.Sprintf("level %d is in force everywhere", level), func() bool {
		for _, m := range c.Members {
			if m.Running() && m.Store.Level() != level {
				return false
			}
		}
		return true
	})
}

func TestTheLevelRisesWithTheLastMember(t *testing.T) {
	on := programs{"m0": 1, "m1": 1, "m2": 1}
	c := storetest.Start(t, 3, on.configure)
	put(t, c, c.Leader(), "before", 5)
	levelEverywhere(c, 1)
	for i, m := range c.Members {
		waitsFor := []string{"m1 runs v0.1, which understands level 1; m2 runs v0.1", "m2 runs v0.1", ""}[i]
		if err := on.install(m, 2); err != nil {
			t.Fatal(err)
		}
		put(t, c, c.Leader(), fmt.Sprintf("during%d", i), 5)
		if waitsFor == "" {
			continue
		}
		// An old leader does not know that there is a higher level.
		c.Eventually("a new program leads", func() bool {
			if leader := c.Leader(); leader != m {
				// Connections to the member that has just been started anew may be stale.
				_ = leader.Store.Membership().Transfer(patience(t), m.Name)
			}
			return m.Store.IsLeader()
		})
		waiting(c, waitsFor)
		levelEverywhere(c, 1)
	}
	levelEverywhere(c, 2)
	if waits := c.Leader().Store.Membership().LevelWaits(); waits != "" {
		t.Errorf("the leader waits for %q", waits)
	}
	put(t, c, c.Follower(), "after", 5)
	c.Converged()
	for _, m := range c.Members {
		for _, prefix := range []string{"before", "during0", "during1", "during2", "after"} {
			if n := count(t, m, prefix); n != 5 {
				t.Errorf("%s has %d keys %s, want 5", m.Name, n, prefix)
			}
		}
	}
}

func TestGoingBackWorksUntilTheLevelIsRaised(t *testing.T) {
	on := programs{"m0": 2, "m1": 2, "m2": 1}
	c := storetest.Start(t, 3, on.configure)
	m0, m1, m2 := c.Members[0], c.Members[1], c.Members[2]
	put(t, c, c.Leader(), "a", 5)
	if err := on.install(m1, 1); err != nil {
		t.Fatalf("going back before the raise: %v", err)
	}
	put(t, c, m1, "b", 5)
	for _, m := range []*storetest.Member{m1, m2} {
		if err := on.install(m, 2); err != nil {
			t.Fatal(err)
		}
	}
	levelEverywhere(c, 2)
	// Its last snapshot may be older than the raise; wherever it meets level 2, in
	// its file, its log or at its peers, it ends there.
	err := on.install(m2, 1)
	if err == nil {
		err = m2.Ended()
		m2.Stop()
	}
	for _, text := range []string{`member "m2" understands the command set up to level 1`, "of level 2", "install the tripod-hub"} {
		if !strings.Contains(fmt.Sprint(err), text) {
			t.Errorf("going back after the raise: %v, want %q in it", err, text)
		}
	}
	if !errors.Is(err, store.ErrTooOld) {
		t.Errorf("not %v: %v", store.ErrTooOld, err)
	}
	put(t, c, m0, "c", 5)
	if err := on.install(m2, 2); err != nil {
		t.Fatalf("the remedy does not help: %v", err)
	}
	c.Converged()
	for _, prefix := range []string{"a", "b", "c"} {
		if n := count(t, m2, prefix); n != 5 {
			t.Errorf("m2 has %d keys %s, want 5", n, prefix)
		}
	}
}

func TestAMemberWithoutAVoteHoldsTheLevelBack(t *testing.T) {
	on := programs{"m0": 1, "m1": 1, "m2": 1, "m3": 1}
	c := storetest.Start(t, 3, on.configure)
	fresh := c.New("m3", "c0")
	if err := c.Leader().Store.Membership().Add(patience(t), fresh.Address, ""); err != nil {
		t.Fatal(err)
	}
	for _, m := range c.Members[:3] {
		if err := on.install(m, 2); err != nil {
			t.Fatal(err)
		}
	}
	waiting(c, "m3 does not answer")
	fresh.Start()
	waiting(c, "m3 runs v0.1, which understands level 1")
	levelEverywhere(c, 1)
	if err := on.install(fresh, 2); err != nil {
		t.Fatal(err)
	}
	levelEverywhere(c, 2)
}

func TestAProgramThatIsTooOldCannotJoin(t *testing.T) {
	on := programs{"m0": 2, "m1": 2, "m2": 2, "m3": 1}
	c := storetest.Start(t, 3, on.configure)
	levelEverywhere(c, 2)
	put(t, c, c.Leader(), "a", 5)
	fresh := c.New("m3", "c0")
	if err := c.Leader().Store.Membership().Add(patience(t), fresh.Address, ""); err != nil {
		t.Fatal(err)
	}
	if err := fresh.TryStart(); err != nil {
		t.Fatal(err)
	}
	err := fresh.Ended()
	fresh.Stop()
	if !errors.Is(err, store.ErrTooOld) || !strings.Contains(err.Error(), `member "m3" understands the command set up to level 1`) {
		t.Fatalf("an old program that joins ends with %v", err)
	}
	if err := on.install(fresh, 2); err != nil {
		t.Fatal(err)
	}
	c.Eventually("it has everything with a program that is new enough", func() bool { return count(t, fresh, "a") == 5 })
	levelEverywhere(c, 2)
}
