package hook

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"tripod.dev/tripod/failover"
)

// grpc asks a service for its health.
func (r *Runner) grpc(ctx context.Context, c failover.HookCall) (string, error) {
	h := c.Hook.GRPC
	security := insecure.NewCredentials()
	if h.Security != "Plaintext" {
		config, err := trust(h.CABundle)
		if err != nil {
			return "", err
		}
		security = credentials.NewTLS(config)
	}
	conn, err := grpc.NewClient("passthrough:///"+h.Address, grpc.WithTransportCredentials(security))
	if err != nil {
		return "", fmt.Errorf("dial %s: %w", h.Address, err)
	}
	defer func() { _ = conn.Close() }()
	ctx = metadata.AppendToOutgoingContext(ctx, "idempotency-key", c.ID, "tripod-run", c.Run.Name, "tripod-hook", c.Hook.Name,
		"tripod-at", string(c.Hook.At), "tripod-application", c.Application.Namespace+"/"+c.Application.Name)
	answer, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{Service: h.Service})
	if err != nil {
		return "", fmt.Errorf("ask %s for the health of %q: %w", h.Address, h.Service, err)
	}
	if answer.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		return "", fmt.Errorf("%s says %s of %q, want SERVING", h.Address, answer.GetStatus(), h.Service)
	}
	return "SERVING", nil
}
