package guard

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// authority is a hub's CA whose credentials are files.
type authority struct {
	t    *testing.T
	dir  string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.key, a.cert = a.issue(pkix.Name{CommonName: "hub"}, nil)
	return a
}

func (a *authority) issue(name pkix.Name, by *authority) (*ecdsa.PrivateKey, *x509.Certificate) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: name, IsCA: by == nil, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return key, cert
}

// guard writes a guard's files, as its Secret is mounted.
func (a *authority) guard(id Identity, hubs string) Credentials {
	a.t.Helper()
	key, cert := a.issue(pkix.Name{CommonName: id.CommonName(), Organization: []string{GuardsOrganization}}, a)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	write := func(name string, content []byte) string {
		path := filepath.Join(a.dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			a.t.Fatal(err)
		}
		return path
	}
	return Credentials{
		Certificate: write("tls.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})),
		Key:         write("tls.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})),
		Authority:   write("ca.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})),
		Hubs:        write(HubsFile, []byte(hubs)),
	}
}

// hubMember proves the primary role to whoever asks.
type hubMember struct {
	agentv1.UnimplementedGuardsServer
}

func (hubMember) Attach(stream agentv1.Guards_AttachServer) error {
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		if m.GetAsk() == nil {
			continue
		}
		proof := proofOf(asPrimary, 1, 1, 5*time.Second)
		proof.Seq = m.GetAsk().GetSeq()
		if err := stream.Send(&agentv1.GuardOrder{Kind: &agentv1.GuardOrder_Proof{Proof: proof}}); err != nil {
			return err
		}
	}
}

func (a *authority) serve() (address string) {
	a.t.Helper()
	key, cert := a.issue(pkix.Name{CommonName: memberPrefix + "hub-a", Organization: []string{membersOrganization}}, a)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		a.t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert,
		Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}})))
	agentv1.RegisterGuardsServer(server, hubMember{})
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	a.t.Cleanup(func() { server.Stop(); <-done })
	return listener.Addr().String()
}

// A guard whose agents are all away finds the hub's members in its credentials, and
// has its proof from them (safety.md section 4).
func TestAGuardThatNoAgentAnswersAsksTheHub(t *testing.T) {
	a := newAuthority(t)
	g := newGuard(t, &database{})
	g.cfg.Tick = 20 * time.Millisecond
	g.cfg.Credentials = a.guard(g.cfg.Identity, "127.0.0.1:1\n"+a.serve()+"\n")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- caller{g}.attach(ctx) }()
	defer func() { cancel(); <-done }()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	limit := time.After(10 * time.Second)
	for {
		g.mu.Lock()
		may := g.core.MayBePrimary(g.cfg.Clock())
		g.mu.Unlock()
		if may {
			return
		}
		select {
		case <-look.C:
		case <-limit:
			t.Fatal("the guard has no proof after 10 s: it did not ask the hub")
		}
	}
}

// An agent that has just started and knows no role yet is no answer to a primary: one
// that crash-loops would keep its guard from asking the hub.
func TestAnAnswerWithoutARoleDoesNotKeepAPrimaryFromAskingTheHub(t *testing.T) {
	g := newGuard(t, &database{})
	knowsNothing := &agentv1.Proof{Incarnation: 1, Revision: 1, RemainingMillis: 5000}
	for _, tt := range []struct {
		mode  agentv1.DatabaseMode
		heard bool
	}{{primary, false}, {agentv1.DatabaseMode_DATABASE_MODE_STOPPED, true}} {
		g.heard = 0
		g.set(func() { g.core.mode = tt.mode })
		if err := g.learn(Instant(time.Minute), knowsNothing, false); err != nil {
			t.Fatal(err)
		}
		if heard := g.heard != 0; heard != tt.heard {
			t.Errorf("a database in mode %v: heard is %t, want %t", tt.mode, heard, tt.heard)
		}
	}
}
