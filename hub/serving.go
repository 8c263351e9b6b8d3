package hub

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"

	"tripod.dev/tripod/hub/apiserver"
	"tripod.dev/tripod/hub/gateway"
	"tripod.dev/tripod/hub/identity"
	"tripod.dev/tripod/hub/rpc"
	"tripod.dev/tripod/hub/session"
	"tripod.dev/tripod/hub/store/member"
	"tripod.dev/tripod/hub/view"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

// openAPIServer makes the API server with the gateway among its handlers. The
// gateway dials through the sessions, which are opened later, and the view's
// handler asks the server's own authorizer: both are bound when first used.
func (m *Member) openAPIServer(ctx context.Context) error {
	var fleet http.Handler
	reach, err := m.reach()
	if err != nil {
		return err
	}
	m.routes, err = gateway.New(gateway.Config{
		Dialer:       dialer(func(ctx context.Context, cluster string) (net.Conn, error) { return m.sessions.Dial(ctx, cluster) }),
		Clusters:     &m.senses,
		Applications: &whereabouts{committed: m.senses.committed, linearize: m.store.Linearize, clock: m.clock},
		Fleet:        http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fleet.ServeHTTP(w, r) }),
		ClientCertificate: func() (*tls.Certificate, error) {
			return m.identity.ClientCertificate(), nil
		},
		Reach:  reach,
		Again:  again,
		Logger: m.logger, Registerer: m.metrics,
	})
	if err != nil {
		return err
	}
	files := m.identity.Files()
	m.apiserver, err = apiserver.New(ctx, apiserver.Config{
		Member:    m.config.Name,
		Listen:    net.JoinHostPort(m.config.self().Address, APIPort),
		Advertise: m.config.self().Address,
		DataDir:   filepath.Join(m.config.DataDir, "apiserver"),
		Store: apiserver.Store{
			Endpoints: []string{"http://" + m.config.etcdAddress()}, Dial: m.dialStore,
		},
		Identity: apiserver.Identity{
			CA: files.CACertificate, Authorities: m.identity, Certificate: files.MemberCertificate, Key: files.MemberKey,
			ServiceAccountKey: files.ServiceAccountKey,
		},
		AuthenticationConfig: m.config.AuthenticationConfigFile,
		Drivers:              m.config.datasetDrivers(),

		Encryption: m.box,
		Audit:      m.auditing(),
		Hooks: apiserver.Hooks{RequestInfo: m.routes.RequestInfo, LongRunning: m.routes.LongRunning, Passes: m.routes.Passes, Front: m.routes.Front, Handler: func(next http.Handler) http.Handler {
			return m.noteOldCertificates(m.seal.guard(m.routes.Handler(next)))
		}},
		Logger: m.logger,
	})
	if err != nil {
		return err
	}
	fleet, err = view.NewHandler(view.HandlerConfig{
		View: m.senses.view, Authorizer: m.apiserver.Authorizer(), Printer: apiserver.NewTables(),
	})
	return err
}

// again judges open streams as they were judged when they came.
func again(ctx context.Context) gateway.Judge {
	if judge := apiserver.AgainOf(ctx); judge != nil {
		return judge
	}
	return nil
}

// dialer is a function that opens streams to clusters.
type dialer func(ctx context.Context, cluster string) (net.Conn, error)

func (d dialer) Dial(ctx context.Context, cluster string) (net.Conn, error) { return d(ctx, cluster) }

// openSessions opens the port of the agents, the other members and automation.
func (m *Member) openSessions(ctx context.Context) error {
	self := m.config.self()
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(self.Address, RPCPort))
	if err != nil {
		return fmt.Errorf("listen for agents: %w", err)
	}
	admin, err := m.newAdmin()
	if err != nil {
		return err
	}
	config := session.Config{
		Name: self.Name, Center: self.Center, Listener: listener,
		TLS:         m.identity.ServerTLS(),
		Roots:       m.identity.Roots,
		Authorities: m.hubAuthorities,
		PeerTLS:     m.peerTLS,
		Members:     m.sessionMembers,
		Sealed:      m.seal.Sealed,
		Lease:       m.lease,
		Incarnation: m.store.Incarnation,
		Leadership:  m.services.leader,
		Identify:    m.identify,
		Admit:       m.senses.committed.Admitted,
		Believe:     m.apiserver.Believe,
		Heard: func(cluster string, heartbeat *agentv1.Heartbeat) {
			m.senses.observations.Hear(cluster, heartbeat)
			m.progress.note(cluster, heartbeat)
		},
		Leaser:  m.senses.leaser,
		View:    m.senses.view,
		Desired: m.services.renderer,
		Applied: m.services.reports,
		Join: func(conn net.Conn) {
			if err := m.identity.ServeJoin(conn.(*tls.Conn)); err != nil {
				m.logger.Warn("member did not join", "error", err)
			}
		},
		Register: []func(grpc.ServiceRegistrar){admin.Register},
		// People show a token instead.
		WithoutCertificate: true, ServerOptions: rpc.Authenticated(m.apiserver.Authenticator()),
		Logger: m.logger, Registerer: m.metrics,
	}
	m.sessions, err = session.New(config)
	return err
}

// peerTLS dials another member, which must show a member's certificate.
func (m *Member) peerTLS(string) *tls.Config { return m.identity.PeerTLS(identity.KindMember) }

// identify reads a certificate that TLS has verified, and keeps it for the list.
func (m *Member) identify(certificate *x509.Certificate) (session.Identity, error) {
	m.identity.Shown(certificate)
	return identify(certificate)
}

// identify is who the certificate names, as the sessions know them.
func identify(certificate *x509.Certificate) (session.Identity, error) {
	peer, err := identity.ParsePeer(certificate)
	if err != nil {
		return session.Identity{}, err
	}
	switch peer.Kind {
	case identity.KindAgent:
		return session.Identity{Cluster: peer.Cluster}, nil
	case identity.KindMember:
		return session.Identity{Member: peer.Name}, nil
	case identity.KindGuard:
		return session.Identity{Guard: session.GuardIdentity{Cluster: peer.Cluster, Namespace: peer.Namespace, Dataset: peer.Dataset}}, nil
	default:
		return session.Identity{}, nil
	}
}

// newAdmin makes the operators' gRPC service.
func (m *Member) newAdmin() (*rpc.Admin, error) {
	reviews, err := authorizationclient.NewForConfig(m.apiserver.Loopback())
	if err != nil {
		return nil, fmt.Errorf("make the reviewer of access: %w", err)
	}
	standing := standing{View: member.New(m.store), autopilot: m.autopilot, defragmenter: m.defragmenter, store: m.store, identity: m.identity, box: m.box}
	return rpc.NewAdmin(rpc.Config{
		Self: m.config.Name, Port: RPCPort, PeerTLS: m.peerTLS,
		Store: standing, Changes: standing, Upkeep: standing, Encryption: &rotation{member: m}, Authority: &authorityRotation{member: m}, Archive: archive{m.store}, Restored: &restored{member: m},
		Authorizer: rpc.RBAC{Reviews: reviews.SubjectAccessReviews()}, Version: Version, Logger: m.logger,
		Certificates: m.certificates,
	}), nil
}

// sessionMembers are the members now, as agents and other members dial them.
func (m *Member) sessionMembers() []session.Member {
	var members []session.Member
	for _, info := range m.store.Membership().List() {
		if info.Address != "" {
			members = append(members, session.Member{
				Name: info.Name, Center: info.Center, Address: net.JoinHostPort(info.Address, RPCPort),
			})
		}
	}
	return members
}

// memberNames are the members now.
func (m *Member) memberNames() []string {
	var names []string
	for _, info := range m.store.Membership().List() {
		names = append(names, info.Name)
	}
	return names
}

// certificates are those that this member holds or was shown.
func (m *Member) certificates() []*hubv1.Certificate {
	var list []*hubv1.Certificate
	for _, c := range m.identity.Certificates() {
		entry := &hubv1.Certificate{
			Name: c.Name, Kind: c.Kind, Where: c.Where, NotBefore: c.NotBefore.Unix(), NotAfter: c.NotAfter.Unix(),
			Renewal: c.Renewal, Problem: c.Problem(time.Now()), Issuer: c.Issuer,
		}
		if !c.Shown.IsZero() {
			entry.Shown = c.Shown.Unix()
		}
		list = append(list, entry)
	}
	return list
}
