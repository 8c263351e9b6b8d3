package member_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/member"
	"tripod.dev/tripod/hub/store/storetest"
)

// pilots runs an autopilot on every running member until the test ends.
func pilots(t *testing.T, c *storetest.Cluster, change ...func(*member.Config)) map[*storetest.Member]*member.Autopilot {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	all := map[*storetest.Member]*member.Autopilot{}
	for _, m := range c.Members {
		if !m.Running() {
			continue
		}
		config := member.Config{
			Store: m.Store, Interval: 20 * time.Millisecond, Patience: 2 * time.Second,
			Policy: member.Policy{SteadyFor: 50 * time.Millisecond},
		}
		for _, f := range change {
			f(&config)
		}
		all[m] = member.NewAutopilot(config)
		wg.Go(func() { _ = all[m].Run(ctx) })
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
	return all
}

// onLeader repeats a change of the membership at whoever leads.
func onLeader(t *testing.T, c *storetest.Cluster, all map[*storetest.Member]*member.Autopilot, do func(*member.Autopilot) error) error {
	t.Helper()
	for range 100 {
		leader := c.Leader()
		err := do(all[leader])
		if errors.Is(err, member.ErrIsLeader) {
			if err := leader.Store.Membership().Transfer(t.Context(), ""); err != nil {
				t.Fatal(err)
			}
			c.Eventually("another member leads", func() bool { return !leader.Store.IsLeader() })
			continue
		}
		if !errors.Is(err, store.ErrNotLeader) {
			return err
		}
	}
	return errors.New("no leader carried it out")
}

func voters(m *storetest.Member) string {
	var names []string
	for _, info := range m.Store.Membership().List() {
		if info.Voter {
			names = append(names, info.Name)
		}
	}
	return strings.Join(names, " ")
}

func TestAMemberIsReplacedUnderWrites(t *testing.T) {
	c := storetest.Start(t, 3, nil)
	all := pilots(t, c)
	leader := c.Leader()
	for i := range 50 {
		if _, err := c.Client(leader).Put(t.Context(), fmt.Sprintf("k%d", i), "v"); err != nil {
			t.Fatal(err)
		}
	}
	old := c.Leader() // the hardest one to replace
	fresh := c.New("m3", old.Address.Center)
	add := func(a *member.Autopilot) error { return a.Add(t.Context(), fresh.Address, old.Name) }
	if err := onLeader(t, c, all, add); err != nil {
		t.Fatal(err)
	}
	if err := onLeader(t, c, all, add); !errors.Is(err, member.ErrRefused) {
		t.Fatalf("the same member was added twice: %v", err)
	}
	if voters(c.Leader()) != "m0 m1 m2" {
		t.Fatalf("a member that was never started votes: %s", voters(c.Leader()))
	}
	fresh.Start()
	c.Eventually("the new member has taken the old one's place", func() bool {
		leader := c.Leader()
		list := voters(leader)
		return len(leader.Store.Membership().List()) == 3 && !strings.Contains(list, old.Name) && strings.Contains(list, fresh.Name)
	})
	c.Eventually("the address book holds the members and nobody else", func() bool {
		for _, m := range c.Members {
			if m == old {
				continue
			}
			list := m.Store.Membership().List()
			if len(list) != 3 || m.Store.Membership().Knows(old.Name) {
				return false
			}
			for _, info := range list {
				if info.Center == "" || info.PeerAddress == "" || info.Replaces != "" {
					return false
				}
			}
		}
		return true
	})
	old.Stop()
	// The others learned its address from the log: forwarding works both ways.
	kvs, _, err := fresh.Store.Range(t.Context(), "k")
	if err != nil || len(kvs) != 50 {
		t.Fatalf("the new member has %d of 50 keys: %v", len(kvs), err)
	}
	for _, m := range c.Members {
		if m == old {
			continue
		}
		if _, err := c.Client(m).Put(t.Context(), "after", m.Name); err != nil {
			t.Fatalf("write through %s: %v", m.Name, err)
		}
	}
}

func TestThreeGrowToFiveAndShrinkAgain(t *testing.T) {
	c := storetest.Start(t, 3, nil)
	all := pilots(t, c)
	leader := c.Leader()
	d, e := c.New("m3", c.Members[0].Address.Center), c.New("m4", c.Members[1].Address.Center)
	for _, m := range []*storetest.Member{d, e} {
		if err := onLeader(t, c, all, func(a *member.Autopilot) error { return a.Add(t.Context(), m.Address, "") }); err != nil {
			t.Fatal(err)
		}
	}
	d.Start()
	c.Eventually("the fourth waits for a fifth", func() bool {
		return strings.Contains(all[c.Leader()].Waiting("m3"), "survive no more")
	})
	if list := voters(leader); list != "m0 m1 m2" {
		t.Fatalf("voters %s", list)
	}
	e.Start()
	c.Eventually("both vote", func() bool { return voters(c.Leader()) == "m0 m1 m2 m3 m4" })
	err := onLeader(t, c, all, func(a *member.Autopilot) error { return a.Remove(t.Context(), "m2", false) })
	if !errors.Is(err, member.ErrRefused) || !strings.Contains(err.Error(), "--force") {
		t.Fatalf("the only member of a center was removed: %v", err)
	}
	err = onLeader(t, c, all, func(a *member.Autopilot) error { return a.Remove(t.Context(), "m4", true) })
	if err != nil {
		t.Fatal(err)
	}
	if err := onLeader(t, c, all, func(a *member.Autopilot) error { return a.Remove(t.Context(), "m3", false) }); err != nil {
		t.Fatal(err)
	}
	c.Eventually("three are left", func() bool { return voters(c.Leader()) == "m0 m1 m2" })
}

func TestLeadershipMovesToThePreferredCenter(t *testing.T) {
	c := storetest.Start(t, 3, nil)
	leader := c.Leader()
	wanted := c.Follower()
	pilots(t, c, func(config *member.Config) {
		config.PreferredCenter, config.PreferAfter = wanted.Address.Center, 50*time.Millisecond
	})
	c.Eventually("the member of the preferred center leads", wanted.Store.IsLeader)
	wanted.Stop()
	c.Eventually("another member leads while it is away", func() bool {
		for _, m := range c.Members {
			if m != wanted && m.Store.IsLeader() {
				return true
			}
		}
		return false
	})
	_ = leader
}
