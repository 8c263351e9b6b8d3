package session

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"tripod.dev/tripod/failover/lease"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

// ALPN protocols of the listener.
const (
	ProtocolGRPC   = "h2"
	ProtocolTunnel = "tripod-tunnel/1"
	ProtocolJoin   = "tripod-join/1"
)

// Identity is who a verified client certificate names. All fields may be empty,
// for instance for an administrator.
type Identity struct {
	// Cluster is set for an agent.
	Cluster string
	// Member is set for a hub member.
	Member string
	// Guard is set for a dataset's guard, and Cluster then is not.
	Guard GuardIdentity

	// certificate is set by the server.
	certificate *x509.Certificate
}

// GuardIdentity is what a guard's certificate is good for.
type GuardIdentity struct{ Cluster, Namespace, Dataset string }

// Member is one hub member.
type Member struct {
	Name   string
	Center string
	// Address is host:port of its session listener.
	Address string
}

// Leadership says who leads. Implementations are safe for concurrent use.
type Leadership interface {
	// Leader is the name of the leading member, empty while none is known; the
	// channel is closed when that changes.
	Leader() (name string, changed <-chan struct{})
}

// Leaser is the leader's answer to heartbeats. Hear returns only after the
// renewal of every cluster in the request is committed and applied; a grant of
// seq 0 in the answer means that none was given. It fails with codes.Unavailable
// on a member that does not lead.
type Leaser interface {
	Hear(ctx context.Context, request *hubv1.RelayRequest) (*hubv1.RelayResponse, error)
}

// ViewSink takes what the agents observe. Calls for one cluster come one after
// the other; they must not block, because they hold up that cluster's session.
type ViewSink interface {
	Apply(cluster, replica string, delta *agentv1.ViewDelta)
	Facts(cluster string, facts *agentv1.ClusterFacts)
	// Disconnected is called when the replica that streamed the view is gone or
	// is told to stop; the next Apply starts with snapshots.
	Disconnected(cluster, replica string)
}

// DesiredSource streams what a cluster should run. The channel is closed when
// ctx ends or the source gives up; the session then ends and the agent comes
// back. The source coalesces while the receiver is slow: the session takes the
// next value only when the last one has been sent.
type DesiredSource interface {
	Watch(ctx context.Context, cluster string) <-chan *agentv1.DesiredState
}

// AppliedSink takes what the active replica applied. It must not block.
type AppliedSink interface {
	Applied(cluster string, status *agentv1.AppliedStatus)
}

// Config describes the sessions of one hub member.
type Config struct {
	// Name and Center are this member's.
	Name   string
	Center string
	// Listener takes plain TCP connections; the server owns and closes it.
	Listener net.Listener
	// TLS serves with the member's certificate and verifies client certificates
	// against the hub's CA if given (tls.VerifyClientCertIfGiven or stricter).
	TLS *tls.Config
	// Roots are the CAs that are trusted now, asked at each handshake; nil takes those
	// of TLS for good.
	Roots func() *x509.CertPool
	// Authorities are the CAs that agents are told to trust, asked often; nil tells
	// them nothing.
	Authorities func() *agentv1.HubAuthorities
	// PeerTLS dials another member; its NextProtos are set here.
	PeerTLS func(member string) *tls.Config
	// Members are all members of the hub now, this one too; agents are told of
	// them. It is asked often and must be cheap. Nil is this member alone.
	Members func() []Member
	// Lease is the fleet's; agents are told of it.
	Lease lease.Config
	// Incarnation is the hub's, read for every session.
	Incarnation func() uint64
	Leadership  Leadership
	// Identify reads a certificate that TLS has verified.
	Identify func(*x509.Certificate) (Identity, error)
	// Sealed is true while the hub was restored from a backup and not approved:
	// sessions then only listen, and tell agents nothing that they would remember.
	// Nil is never.
	Sealed func() bool
	// Admit says why a cluster may not have a session; nil admits. It is asked
	// at the start and at every heartbeat, so it must be cheap.
	Admit func(cluster string) error
	// Believe says why who shows a certificate is not believed any more, whatever it
	// names; nil believes. It is asked at the start of a session, a tunnel and a
	// guard's stream, then at every tick, of a guard at every question; it must be
	// cheap.
	Believe func(*x509.Certificate) error
	// Heard is told of every heartbeat that this member hears itself, leader or
	// not: a new leader so has the last word of a side that died together with
	// the old one. It must not block. Optional.
	Heard   func(cluster string, heartbeat *agentv1.Heartbeat)
	Leaser  Leaser
	View    ViewSink
	Desired DesiredSource
	Applied AppliedSink
	// Join serves tripod-join/1 connections; it closes them. Nil refuses them.
	Join func(net.Conn)
	// Register adds further gRPC services to the port; they authorize their
	// callers themselves.
	Register []func(grpc.ServiceRegistrar)
	// WithoutCertificate lets gRPC connections come without a client certificate,
	// for services of Register that authenticate their callers themselves; the
	// sessions' own ask for one at each call.
	WithoutCertificate bool
	// StreamLinger is how long a stream of a tunnel whose client has left waits for the
	// agent's end of it; default 30 s. An agent that waits for a window does not see that
	// the client left, and until then the member holds what it received, and the agent what it serves.
	StreamLinger time.Duration
	// ServerOptions are added to the gRPC server, for instance interceptors.
	ServerOptions []grpc.ServerOption

	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// WithDefaults fills what may be left out.
func (c Config) WithDefaults() Config {
	if c.Lease == (lease.Config{}) {
		c.Lease = lease.LAN()
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.StreamLinger == 0 {
		c.StreamLinger = 30 * time.Second
	}
	if c.View == nil {
		c.View = discard{}
	}
	if c.Sealed == nil {
		c.Sealed = func() bool { return false }
	}
	if c.Believe == nil {
		c.Believe = func(*x509.Certificate) error { return nil }
	}
	if c.Heard == nil {
		c.Heard = func(string, *agentv1.Heartbeat) {}
	}
	if c.Applied == nil {
		c.Applied = discard{}
	}
	return c
}

// Validate reports everything that is wrong with c after WithDefaults.
func (c Config) Validate() error {
	errs := []error{c.Lease.Validate()}
	missing := func(absent bool, what string) {
		if absent {
			errs = append(errs, fmt.Errorf("sessions of member %q: %s is not set", c.Name, what))
		}
	}
	missing(c.Name == "", "Name")
	missing(c.Listener == nil, "Listener")
	missing(c.TLS == nil, "TLS")
	missing(c.PeerTLS == nil && c.Members != nil, "PeerTLS")
	missing(c.Incarnation == nil, "Incarnation")
	missing(c.Leadership == nil, "Leadership")
	missing(c.Identify == nil, "Identify")
	missing(c.Admit == nil, "Admit")
	missing(c.Leaser == nil, "Leaser")
	return errors.Join(errs...)
}

type discard struct{}

func (discard) Apply(string, string, *agentv1.ViewDelta) {}
func (discard) Facts(string, *agentv1.ClusterFacts)      {}
func (discard) Disconnected(string, string)              {}
func (discard) Applied(string, *agentv1.AppliedStatus)   {}
