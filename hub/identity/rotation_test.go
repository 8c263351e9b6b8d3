package identity_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"tripod.dev/tripod/hub/identity"
	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/etcdapi"
	"tripod.dev/tripod/hub/store/storetest"
)

const (
	life     = time.Hour
	patience = 20 * time.Second
)

// staff are the identities of a hub's members, with one clock that the test moves.
type staff struct {
	t       *testing.T
	ahead   atomic.Int64
	members map[string]*identity.Identity
	renewed map[string]chan struct{}
}

func (s *staff) now() time.Time { return time.Now().Add(time.Duration(s.ahead.Load())) }

// hire opens the identities of one hub and keeps them valid until the test ends.
func hire(t *testing.T, names ...string) *staff {
	s := &staff{t: t, members: map[string]*identity.Identity{}, renewed: map[string]chan struct{}{}}
	root := t.TempDir() // goes last, when nobody writes there any more
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() { cancel(); running.Wait() })
	first := ""
	for _, name := range names {
		dir := filepath.Join(root, name)
		if first != "" { // as if it had fetched the bundle
			if err := os.CopyFS(filepath.Join(dir, "pki"), os.DirFS(filepath.Join(first, "pki"))); err != nil {
				t.Fatal(err)
			}
		}
		first = dir
		i, err := identity.Open(t.Context(), identity.Config{
			Name: name, DataDir: dir, Advertise: "127.0.0.1", Bootstrap: true,
			MemberValidity: life, Now: s.now, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		renewed := make(chan struct{}, 100)
		i.OnRenewal(func() { renewed <- struct{}{} })
		s.members[name], s.renewed[name] = i, renewed
		running.Go(func() { _ = i.Run(ctx) })
	}
	return s
}

// pass lets three quarters of a certificate's life go by, and waits until everybody
// has a new one.
func (s *staff) pass() {
	s.t.Helper()
	s.ahead.Add(int64(life * 3 / 4))
	for name, renewed := range s.renewed {
		select {
		case <-renewed:
		case <-time.After(patience):
			s.t.Fatalf("%s has not renewed its certificate", name)
		}
	}
}

// client connects to one member as the other members do, and counts its connections.
func (s *staff) client(as *identity.Identity, m *storetest.Member) (*clientv3.Client, *atomic.Int64) {
	s.t.Helper()
	dials := &atomic.Int64{}
	c, err := clientv3.New(clientv3.Config{
		Endpoints: []string{"https://" + m.Address.PeerAddress}, TLS: as.ClientTLS(""), Logger: zap.NewNop(), DialTimeout: patience,
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			dials.Add(1)
			return (&net.Dialer{}).DialContext(ctx, "tcp", m.Address.PeerAddress)
		})},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	return c, dials
}

// shows is the certificate that a port shows to a fresh connection of who.
func (s *staff) shows(address string, config *tls.Config) (*x509.Certificate, error) {
	conn, err := (&tls.Dialer{Config: config}).DialContext(s.t.Context(), "tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// TestMembersRenewTheirCertificatesUnderLoad: after three lives' worth of time every
// connection that was open goes on, and every new one is made with certificates of
// now; nothing was restarted.
func TestMembersRenewTheirCertificatesUnderLoad(t *testing.T) {
	names := []string{"m0", "m1", "m2"}
	s := hire(t, names...)
	c := storetest.Start(t, 3, func(sc *store.Config, ac *etcdapi.Config) {
		sc.TLS, ac.TLS = s.members[sc.Name].PeerTLS(), s.members[sc.Name].ServerTLS()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 45*time.Second)
	defer cancel()
	follower := c.Follower()
	old, dials := s.client(s.members["m0"], follower)
	if _, err := old.Put(ctx, "k", "0"); err != nil {
		t.Fatal(err)
	}
	events := old.Watch(ctx, "k", clientv3.WithCreatedNotify())
	<-events
	dialled := dials.Load()
	stale := *s.members["m0"].Certificate()
	for i := range 3 {
		s.pass()
		if _, err := old.Put(ctx, "k", fmt.Sprint(i+1)); err != nil {
			t.Fatalf("after %d renewals: %v", i+1, err)
		}
		if r := <-events; r.Err() != nil || string(r.Events[0].Kv.Value) != fmt.Sprint(i+1) {
			t.Fatalf("the watch tells %v %v", r.Events, r.Err())
		}
	}
	if !s.now().After(stale.Leaf.NotAfter.Add(life)) || dials.Load() != dialled {
		t.Fatalf("the first certificate ended %s, now is %s; the client has dialled %d times more", stale.Leaf.NotAfter, s.now(), dials.Load()-dialled)
	}
	// Every connection among the members anew.
	c.Network.Cut(names, names)
	c.Network.Heal()
	for _, m := range c.Members {
		fresh, _ := s.client(s.members["m1"], m)
		if _, err := fresh.Put(ctx, "fresh-"+m.Name, "v"); err != nil {
			t.Fatalf("a fresh connection to %s: %v", m.Name, err)
		}
		for port, address := range map[string]string{"Raft": m.Address.RaftAddress, "etcd": m.Address.PeerAddress} {
			shown, err := s.shows(address, s.members["m1"].ClientTLS("localhost"))
			if err != nil || !shown.Equal(s.members[m.Name].Certificate().Leaf) {
				t.Errorf("the %s port of %s does not show its present certificate: %v", port, m.Name, err)
			}
		}
	}
	c.Converged()
	// The clock is what decides: with a certificate of the start nobody gets in.
	expired := s.members["m0"].ClientTLS("localhost")
	expired.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &stale, nil }
	refused, err := clientv3.New(clientv3.Config{
		Endpoints: []string{"https://" + follower.Address.PeerAddress}, TLS: expired, Logger: zap.NewNop(), DialTimeout: 2 * time.Second,
	})
	if err == nil {
		short, stop := context.WithTimeout(ctx, 2*time.Second)
		defer stop()
		_, err = refused.Get(short, "k")
		_ = refused.Close()
	}
	if err == nil {
		t.Error("a certificate that has ended is taken")
	}
}

// TestProgramsThatReadFilesFollow: the API server's client of the store reads the
// files at every new connection.
func TestProgramsThatReadFilesFollow(t *testing.T) {
	s := hire(t, "m0", "m1")
	files := s.members["m0"].Files()
	config, err := transport.TLSInfo{CertFile: files.MemberCertificate, KeyFile: files.MemberKey, TrustedCAFile: files.CACertificate}.ClientConfig()
	if err != nil {
		t.Fatal(err)
	}
	config.ServerName, config.Time = "localhost", s.now
	for range 3 {
		server := s.members["m1"].ServerTLS()
		seen := make(chan *x509.Certificate, 1)
		server.ClientAuth = tls.RequireAndVerifyClientCert
		server.VerifyConnection = func(state tls.ConnectionState) error { seen <- state.PeerCertificates[0]; return nil }
		listener, err := tls.Listen("tcp", "127.0.0.1:0", server)
		if err != nil {
			t.Fatal(err)
		}
		var serving sync.WaitGroup
		serving.Go(func() {
			if conn, err := listener.Accept(); err == nil {
				_ = conn.(*tls.Conn).Handshake()
				_ = conn.Close()
			}
		})
		shown, err := s.shows(listener.Addr().String(), config)
		_ = listener.Close()
		serving.Wait()
		if err != nil || !shown.Equal(s.members["m1"].Certificate().Leaf) {
			t.Fatalf("the server shows another certificate than its present one: %v", err)
		}
		if got := <-seen; !got.Equal(s.members["m0"].Certificate().Leaf) {
			t.Fatalf("the client shows a certificate that ends %s, its present one ends %s", got.NotAfter, s.members["m0"].Certificate().Leaf.NotAfter)
		}
		s.pass()
	}
}

func TestTheListOfCertificates(t *testing.T) {
	s := hire(t, "m0", "m1")
	m0, m1 := s.members["m0"], s.members["m1"]
	m0.Shown(m1.Certificate().Leaf)
	names := func() (out []string) {
		for _, c := range m0.Certificates() {
			out = append(out, c.Kind+" "+c.Name)
		}
		return out
	}
	if want := []string{"ca tripod:hub-ca", "member tripod:member:m0", "admin tripod:admin", "member tripod:member:m1"}; !slices.Equal(names(), want) {
		t.Errorf("certificates %q, want %q", names(), want)
	}
	problems := func() (out []string) {
		for _, c := range m0.Certificates() {
			if p := c.Problem(s.now()); p != "" {
				out = append(out, c.Name+": "+p)
			}
		}
		return out
	}
	if len(problems())+len(m0.Problems()) != 0 {
		t.Errorf("problems of fresh certificates: %q", problems())
	}
	s.pass()
	// m1 has not shown its new one.
	if got := problems(); len(got) != 1 || len(m0.Problems()) != 0 {
		t.Errorf("problems %q and %q, want that of m1 alone", got, m0.Problems())
	}
	m0.Shown(m1.Certificate().Leaf)
	if got := problems(); len(got) != 0 {
		t.Errorf("problems %q after it has", got)
	}
	// What nobody shows any more goes.
	s.ahead.Add(int64(identity.LeafValidity + life))
	m0.Shown(m0.Certificate().Leaf)
	if want := "member tripod:member:m1"; slices.Contains(names(), want) {
		t.Errorf("%s is still listed: %q", want, names())
	}
}
