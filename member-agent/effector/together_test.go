package effector_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"tripod.dev/tripod/failover/driver"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// sharing observes all copies in one call, but for the one that is called alone.
type sharing struct {
	counting
	many atomic.Int64
}

// ObserveMany implements driver.ManyObserver.
func (s *sharing) ObserveMany(_ context.Context, datasets []driver.Dataset) []*driver.Observation {
	s.many.Add(1)
	all := make([]*driver.Observation, len(datasets))
	for i, d := range datasets {
		if d.Name != "alone" {
			all[i] = &driver.Observation{Role: driver.RoleReplica, State: driver.StateStreaming, Epoch: 1, Message: d.Name}
		}
	}
	return all
}

// Each heartbeat brings a grant from each member of the hub, and nearly all say what the
// one before said: between two ticks only a role that has changed is a reason to look.
func TestOnlyARoleThatHasChangedIsLookedAtBetweenTicks(t *testing.T) {
	a := newAgent(t)
	for n := int64(1); n <= 5; n++ {
		grant := &agentv1.Grant{Incarnation: 1, Revision: n}
		for name, epoch := range map[string]int64{"same": 1, "moved": n} {
			grant.Roles = append(grant.Roles, &agentv1.RoleGrant{Dataset: &agentv1.DatasetKey{Namespace: "pay", Name: name}, Epoch: epoch,
				Role: agentv1.Role_ROLE_REPLICA, Driver: "counting"})
		}
		a.Grant(grant, time.Now().Add(time.Minute))
		wait(t, 5*time.Second, "a look at both copies", func() bool {
			return a.driver.looked("same").Load() >= 1 && a.driver.looked("moved").Load() >= n
		})
	}
	if n := a.driver.looked("same").Load(); n != 1 {
		t.Errorf("the copy whose role is the same was looked at %d times, want once", n)
	}
}

func TestCopiesOfOneDriverAreObservedTogether(t *testing.T) {
	d := &sharing{}
	a := newAgentOf(t, d)
	grant := &agentv1.Grant{Incarnation: 1, Revision: 1}
	for _, name := range []string{"alone", "first", "second"} {
		grant.Roles = append(grant.Roles, &agentv1.RoleGrant{Dataset: &agentv1.DatasetKey{Namespace: "pay", Name: name}, Epoch: 1,
			Role: agentv1.Role_ROLE_REPLICA, Driver: "counting"})
	}
	a.Grant(grant, time.Now().Add(time.Minute))
	wait(t, 5*time.Second, "an observation of each copy", func() bool {
		all, ages := a.Observations()
		return len(all) == len(grant.Roles) && len(ages) == len(all)
	})
	all, _ := a.Observations()
	for _, o := range all {
		want := o.GetDataset().GetName()
		if want == "alone" {
			want = "" // observed by itself
		}
		if o.GetState() != string(driver.StateStreaming) || o.GetMessage() != want {
			t.Errorf("%s is observed as %v", o.GetDataset().GetName(), o)
		}
	}
	if many, single := d.many.Load(), d.looked("alone").Load(); many != 1 || single != 1 {
		t.Errorf("the driver was asked %d times for many copies and %d times for one, want once each", many, single)
	}
}
