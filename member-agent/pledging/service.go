package pledging

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"tripod.dev/tripod/failover/guard"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// service answers the agents of other clusters, and the other replicas of this
// one's.
type service struct {
	agentv1.UnimplementedPledgesServer
	config  Config
	pledger *pledger
	peers   *peers
}

// Pledge implements agentv1.PledgesServer.
func (s *service) Pledge(ctx context.Context, request *agentv1.PledgeRequest) (*agentv1.PledgeResponse, error) {
	cluster, err := s.asker(ctx, request.GetOnBehalfOf())
	if err != nil {
		return nil, status.Error(codes.PermissionDenied, err.Error())
	}
	response, err := s.pledger.answer(cluster, request)
	if errors.Is(err, errInactive) && request.GetOnBehalfOf() == "" {
		response, err = s.passOn(ctx, cluster, request)
	}
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return response, nil
}

// asker takes the cluster that asks from the certificate; only this cluster's own
// agent speaks for another.
func (s *service) asker(ctx context.Context, onBehalfOf string) (string, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return "", errors.New("no peer")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return "", errors.New("no certificate")
	}
	cluster, err := guard.AgentOf(info.State.PeerCertificates[0])
	switch {
	case err != nil:
		return "", err
	case onBehalfOf == "":
		return cluster, nil
	case cluster != s.config.Cluster:
		return "", fmt.Errorf("the agent of %s speaks for %s: an agent asks for its own cluster only", cluster, onBehalfOf)
	}
	return onBehalfOf, nil
}

// passOn asks the other replicas; the first pledge counts.
func (s *service) passOn(ctx context.Context, cluster string, request *agentv1.PledgeRequest) (*agentv1.PledgeResponse, error) {
	addresses := s.replicas(ctx)
	if len(addresses) == 0 {
		return nil, errInactive
	}
	ctx, cancel := context.WithCancel(ctx)
	asked := &agentv1.PledgeRequest{TtlMillis: request.GetTtlMillis(), Roles: request.GetRoles(), OnBehalfOf: cluster}
	type answer struct {
		response *agentv1.PledgeResponse
		err      error
	}
	answers := make(chan answer, len(addresses))
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	for _, address := range addresses {
		asking.Go(func() {
			response, err := s.peers.ask(ctx, s.config.Cluster, address, asked)
			answers <- answer{response, err}
		})
	}
	errs := []error{errInactive}
	for range addresses {
		a := <-answers
		if a.err == nil {
			return a.response, nil
		}
		errs = append(errs, a.err)
	}
	return nil, errors.Join(errs...)
}

// replicas are the addresses of all replicas of this cluster's agent. This one's
// own is among them: it answers that it is not active.
func (s *service) replicas(ctx context.Context) []string {
	host, port, err := net.SplitHostPort(s.config.Replicas)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.config.Lease.Tick)
	defer cancel()
	ips, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		s.config.Log.Warn("the replicas of this agent are not found", "name", host, "error", err)
		return nil
	}
	slices.Sort(ips)
	addresses := make([]string, 0, len(ips))
	for _, ip := range ips {
		addresses = append(addresses, net.JoinHostPort(ip, port))
	}
	return addresses
}
