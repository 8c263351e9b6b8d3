package socket

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"tripod.dev/tripod/failover/driver"
	driverv1 "tripod.dev/tripod/proto/driver/v1"
)

// Register adds a driver to a server that listens on a Unix socket which only the
// agent can open.
func Register(server grpc.ServiceRegistrar, d driver.Driver) {
	driverv1.RegisterDriverServer(server, &service{driver: d})
}

// service is the driver's end.
type service struct {
	driverv1.UnimplementedDriverServer
	driver driver.Driver
}

// Identity implements driverv1.DriverServer.
func (s *service) Identity(context.Context, *driverv1.IdentityRequest) (*driverv1.IdentityResponse, error) {
	id := s.driver.Identity()
	return &driverv1.IdentityResponse{Name: id.Name, Version: id.Version, ZeroLoss: id.ZeroLoss, Protocol: Protocol}, nil
}

// Observe implements driverv1.DriverServer.
func (s *service) Observe(ctx context.Context, r *driverv1.ObserveRequest) (*driverv1.Observation, error) {
	return toObservation(s.driver.Observe(ctx, fromDataset(r.GetDataset()))), nil
}

// manyWait is how long a copy that takes long to observe holds up the others.
const manyWait = 200 * time.Millisecond

// ObserveMany implements driverv1.DriverServer. What it leaves out ends with its context.
func (s *service) ObserveMany(ctx context.Context, r *driverv1.ObserveManyRequest) (*driverv1.ObserveManyResponse, error) {
	type answer struct {
		at          int
		observation *driverv1.Observation
	}
	answers := make(chan answer, len(r.GetDatasets()))
	response := &driverv1.ObserveManyResponse{}
	for i, d := range r.GetDatasets() {
		response.Observed = append(response.Observed, &driverv1.ObserveManyResponse_Observed{})
		go func() { answers <- answer{i, toObservation(s.driver.Observe(ctx, fromDataset(d)))} }()
	}
	late := time.NewTimer(manyWait)
	defer late.Stop()
	for range r.GetDatasets() {
		select {
		case a := <-answers:
			response.Observed[a.at].Observation = a.observation
		case <-late.C:
			return response, nil
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
	return response, nil
}

// Promote implements driverv1.DriverServer.
func (s *service) Promote(ctx context.Context, c *driverv1.Call) (*driverv1.Observation, error) {
	return observe(s.driver.Promote(ctx, fromCall(c)))
}

// Demote implements driverv1.DriverServer.
func (s *service) Demote(ctx context.Context, c *driverv1.Call) (*driverv1.Observation, error) {
	return observe(s.driver.Demote(ctx, fromCall(c)))
}

// Fence implements driverv1.DriverServer.
func (s *service) Fence(ctx context.Context, c *driverv1.Call) (*driverv1.Observation, error) {
	return observe(s.driver.Fence(ctx, fromCall(c)))
}

// SetSyncSet implements driverv1.DriverServer.
func (s *service) SetSyncSet(ctx context.Context, c *driverv1.Call) (*driverv1.Observation, error) {
	return observe(s.driver.SetSyncSet(ctx, fromCall(c)))
}

// Probe implements driverv1.DriverServer.
func (s *service) Probe(ctx context.Context, c *driverv1.Call) (*driverv1.ProbeResponse, error) {
	p, err := s.driver.Probe(ctx, fromCall(c))
	if err != nil {
		return nil, toStatus(err)
	}
	return &driverv1.ProbeResponse{Writable: p.Writable, Listening: p.Listening, Message: p.Message}, nil
}

// Resync implements driverv1.DriverServer. A divergence that needs an approval is an
// answer, because it comes with what was measured.
func (s *service) Resync(ctx context.Context, r *driverv1.ResyncRequest) (*driverv1.ResyncResponse, error) {
	done, err := s.driver.Resync(ctx, fromCall(r.GetCall()), r.GetDiscard())
	response := &driverv1.ResyncResponse{Method: string(done.Method), Divergence: toDivergence(done.Divergence), Observation: toObservation(done.Observation)}
	var diverged *driver.Diverged
	if errors.As(err, &diverged) {
		response.Diverged, response.Divergence = diverged.Reason, toDivergence(diverged.Divergence)
		return response, nil
	}
	if err != nil {
		return nil, toStatus(err)
	}
	return response, nil
}

func observe(o driver.Observation, err error) (*driverv1.Observation, error) {
	if err != nil {
		return nil, toStatus(err)
	}
	return toObservation(o), nil
}
