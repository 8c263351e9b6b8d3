package socket

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tripod.dev/tripod/failover/driver"
	driverv1 "tripod.dev/tripod/proto/driver/v1"
)

var roles = map[driver.Role]driverv1.Role{
	driver.RoleNone: driverv1.Role_ROLE_NONE, driver.RoleReplica: driverv1.Role_ROLE_REPLICA, driver.RolePrimary: driverv1.Role_ROLE_PRIMARY,
}

func toDataset(d driver.Dataset) *driverv1.Dataset {
	return &driverv1.Dataset{Namespace: d.Namespace, Name: d.Name, Cluster: d.Cluster, Parameters: d.Parameters}
}

func fromDataset(d *driverv1.Dataset) driver.Dataset {
	return driver.Dataset{Namespace: d.GetNamespace(), Name: d.GetName(), Cluster: d.GetCluster(), Parameters: d.GetParameters()}
}

func toCall(c driver.Call) *driverv1.Call {
	return &driverv1.Call{Incarnation: c.Incarnation, Epoch: c.Epoch, Revision: c.Revision, Dataset: toDataset(c.Dataset),
		Primary: c.Primary, PrimaryAddress: c.PrimaryAddress, SyncSet: c.SyncSet}
}

func fromCall(c *driverv1.Call) driver.Call {
	return driver.Call{Incarnation: c.GetIncarnation(), Epoch: c.GetEpoch(), Revision: c.GetRevision(), Dataset: fromDataset(c.GetDataset()),
		Primary: c.GetPrimary(), PrimaryAddress: c.GetPrimaryAddress(), SyncSet: c.GetSyncSet()}
}

func toObservation(o driver.Observation) *driverv1.Observation {
	return &driverv1.Observation{Role: roles[o.Role], State: string(o.State), Epoch: o.Epoch,
		Position: o.Position.Text, PositionBytes: o.Position.Bytes, Timeline: o.Position.Timeline, LagBytes: o.LagBytes, LagSeconds: o.LagSeconds,
		Acknowledges: o.Acknowledges, Streaming: o.Streaming, CaughtUp: o.CaughtUp, Guarded: o.Guarded, GuardKnown: o.GuardKnown,
		Message: o.Message, HeldEpoch: o.HeldEpoch, HeldSyncSet: o.HeldSyncSet, Copy: string(o.Copy)}
}

func fromObservation(o *driverv1.Observation) driver.Observation {
	role := driver.RoleNone
	for name, number := range roles {
		if number == o.GetRole() {
			role = name
		}
	}
	return driver.Observation{Role: role, State: driver.State(o.GetState()), Epoch: o.GetEpoch(),
		Position: driver.Position{Text: o.GetPosition(), Bytes: o.GetPositionBytes(), Timeline: o.GetTimeline()},
		LagBytes: o.LagBytes, LagSeconds: o.LagSeconds,
		Acknowledges: o.GetAcknowledges(), Streaming: o.GetStreaming(), CaughtUp: o.GetCaughtUp(), Guarded: o.GetGuarded(), GuardKnown: o.GetGuardKnown(),
		Message: o.GetMessage(), HeldEpoch: o.GetHeldEpoch(), HeldSyncSet: o.GetHeldSyncSet(), Copy: driver.CopyState(o.GetCopy())}
}

func toDivergence(d driver.Divergence) *driverv1.Divergence {
	return &driverv1.Divergence{Measured: d.Measured, Fork: d.Fork, Bytes: d.Bytes, Commits: d.Commits}
}

func fromDivergence(d *driverv1.Divergence) driver.Divergence {
	return driver.Divergence{Measured: d.GetMeasured(), Fork: d.GetFork(), Bytes: d.GetBytes(), Commits: d.GetCommits()}
}

// toStatus keeps of an error what the agent acts upon: whether it is final.
func toStatus(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, driver.ErrOlder):
		return status.Error(codes.Aborted, err.Error())
	case errors.Is(err, driver.ErrRefused):
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	return status.Error(codes.Unknown, err.Error())
}

// fromStatus makes the contract's errors again. Everything else may be tried
// again: a driver that died in the middle of a call, too.
func fromStatus(name string, err error) error {
	if err == nil {
		return nil
	}
	s := status.Convert(err)
	switch s.Code() {
	case codes.Aborted:
		return fmt.Errorf("driver %s: %s: %w", name, s.Message(), driver.ErrOlder)
	case codes.FailedPrecondition, codes.InvalidArgument, codes.Unimplemented:
		return fmt.Errorf("driver %s: %s: %w", name, s.Message(), driver.ErrRefused)
	case codes.Unavailable:
		return fmt.Errorf("driver %s: %s: see that its container runs beside the agent and shares its socket", name, s.Message())
	}
	return fmt.Errorf("driver %s: %s", name, s.Message())
}
