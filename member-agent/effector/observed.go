package effector

import (
	"tripod.dev/tripod/failover/driver"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

func observed(k key, o driver.Observation) *agentv1.DatasetObservation {
	return &agentv1.DatasetObservation{
		Dataset: &agentv1.DatasetKey{Namespace: k.namespace, Name: k.name},
		Role:    observedRole(o.Role), State: string(o.State), Epoch: o.Epoch,
		Position: o.Position.Text, PositionBytes: o.Position.Bytes, Timeline: o.Position.Timeline,
		LagBytes: o.LagBytes, LagSeconds: o.LagSeconds,
		Guarded: o.Guarded, GuardKnown: o.GuardKnown,
		HeldEpoch: o.HeldEpoch, HeldSyncSet: o.HeldSyncSet,
		Acknowledges: o.Acknowledges, Streaming: o.Streaming, CaughtUp: o.CaughtUp, Message: o.Message, Copy: string(o.Copy),
	}
}

func observedRole(r driver.Role) agentv1.Role {
	switch r {
	case driver.RolePrimary:
		return agentv1.Role_ROLE_PRIMARY
	case driver.RoleReplica:
		return agentv1.Role_ROLE_REPLICA
	}
	return agentv1.Role_ROLE_NONE
}
