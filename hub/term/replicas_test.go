package term

import (
	"testing"
	"time"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

func TestAnAgentPledgesWhenAllItsReplicasKnowHow(t *testing.T) {
	beat := func(replica string, pledges, guard bool) *agentv1.Heartbeat {
		return &agentv1.Heartbeat{Replica: replica, Pledges: pledges, Guard: guard}
	}
	now := time.Duration(0)
	o := NewObservations(time.Second, func() time.Duration { return now })
	want := func(what string, is bool) {
		t.Helper()
		if got := o.Pledge("north-1"); got != is {
			t.Errorf("%s: Pledge is %v", what, got)
		}
	}
	want("nobody was heard", false)
	o.Note("north-1", beat("a", true, false))
	want("one replica knows", true)
	o.Note("north-1", beat("b", false, false))
	want("the other one is older, and may become the active one", false)
	o.Note("north-2", beat("b", true, false))
	want("another cluster's was upgraded", false)
	o.Note("north-1", beat("guard", true, true))
	want("a guard says nothing about it", false)
	now += forgetReplica
	o.Note("north-1", beat("a", true, false))
	want("the older one may still run", false)
	now++
	want("the older one is gone", true)
	o.Note("north-1", beat("b", true, false))
	want("it came back upgraded", true)
	now += forgetReplica + 1
	want("nobody is heard any more", false)
}
