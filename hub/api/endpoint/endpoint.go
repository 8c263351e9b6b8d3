// Package endpoint reaches a hub through whichever member answers.
package endpoint

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// Ports of every hub member.
const (
	APIPort = "6443" // Kubernetes API and gateway
	RPCPort = "6444" // gRPC and agents
)

// ServerName is in every member's certificate, so that a connection may go to
// any member whatever address a kubeconfig names.
const ServerName = "kubernetes.default.svc"

// Timeout bounds the attempt at one member: a center without power answers
// nothing.
const Timeout = 700 * time.Millisecond

// Parse reads HOST[:PORT],HOST[:PORT] and completes each with port.
func Parse(list, port string) []string {
	var members []string
	for m := range strings.SplitSeq(list, ",") {
		m = strings.TrimPrefix(strings.TrimSpace(m), "https://")
		if m == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(m); err != nil {
			m = net.JoinHostPort(strings.Trim(m, "[]"), port)
		}
		members = append(members, m)
	}
	return members
}

// Dialer returns a dial function that tries the members (HOST:PORT) in order,
// whatever address it is asked for.
func Dialer(members []string) func(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: Timeout}
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		var failed []error
		for _, m := range members {
			conn, err := dialer.DialContext(ctx, network, m)
			if err == nil {
				return conn, nil
			}
			failed = append(failed, err)
		}
		return nil, fmt.Errorf("no hub member answers: %w", errors.Join(failed...))
	}
}
