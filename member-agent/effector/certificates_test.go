package effector

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tripod.dev/tripod/failover/driver"
	"tripod.dev/tripod/failover/guard"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
	"tripod.dev/tripod/test/authority"
)

// office signs certificates, keeps Secrets, and is the agent's identity.
type office struct {
	hub    *authority.Authority
	signed int
	secret map[string][]byte
}

func newOffice(t *testing.T) *office {
	t.Helper()
	return &office{hub: authority.New(t, "hub")}
}

func (o *office) ServingCertificate() (*tls.Certificate, error) { return &tls.Certificate{}, nil }

func (o *office) AuthorityPEM() []byte { return o.hub.PEM() }

func (o *office) Outdated(*x509.Certificate) (outdated, due bool) { return false, false }

func (o *office) Authority() *x509.CertPool { return o.hub.Pool() }

func (o *office) GuardCertificate(_ context.Context, _, _ string, request []byte) (certificate, ca []byte, err error) {
	o.signed++
	block, _ := pem.Decode(request)
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, nil, err
	}
	der, err := o.hub.Sign(&x509.Certificate{Subject: csr.Subject}, csr.PublicKey)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), o.hub.PEM(), err
}

func (o *office) Secret(context.Context, string, string) (map[string][]byte, error) {
	return o.secret, nil
}

func (o *office) PutSecret(_ context.Context, _, _ string, data map[string][]byte) error {
	o.secret = data
	return nil
}

// A guard that no agent answers asks the hub: it finds the members where its
// certificate is, also those that came later.
func TestGuardsAreToldWhereTheHubIs(t *testing.T) {
	o := newOffice(t)
	hubs := []string{"10.0.0.2:6444", "10.0.0.1:6444"}
	e, err := New(Config{Cluster: "north-1", Replica: "agent-0", Listen: "127.0.0.1:0", Identity: o, Certificates: o, Secrets: o,
		Hubs: func() []string { return hubs }, Active: func() bool { return true }})
	if err != nil {
		t.Fatal(err)
	}
	s := e.site(ledgerKey)
	for _, want := range []string{"10.0.0.1:6444\n10.0.0.2:6444", "10.0.0.1:6444\n10.0.0.2:6444\n10.0.0.3:6444"} {
		s.certified = time.Time{}
		if err := (certifier{e}).certify(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		if got := string(o.secret[guard.HubsFile]); got != want {
			t.Errorf("the Secret has the members %q, want %q", got, want)
		}
		hubs = append(hubs, "10.0.0.3:6444")
	}
	if o.signed != 1 {
		t.Errorf("%d certificates were signed, want one: it was good", o.signed)
	}
}

// unread keeps Secrets that nobody may ask for.
type unread struct {
	*office
	t *testing.T
}

func (u unread) Secret(_ context.Context, namespace, name string) (map[string][]byte, error) {
	u.t.Errorf("Secret %s/%s is read", namespace, name)
	return nil, nil
}

// unguarded is a driver without a guard.
type unguarded struct{ driver.Driver }

func (unguarded) Identity() driver.Identity { return driver.Identity{Name: "shelf", Unfenced: true} }

// There may be a thousand of them, and each would cost a key, a signature and a Secret.
func TestACopyWithoutAGuardGetsNoCertificate(t *testing.T) {
	o := newOffice(t)
	e, err := New(Config{Cluster: "north-1", Replica: "agent-0", Listen: "127.0.0.1:0", Identity: o, Certificates: o, Secrets: unread{o, t},
		Drivers: map[string]driver.Driver{"shelf": unguarded{}}, Active: func() bool { return true }})
	if err != nil {
		t.Fatal(err)
	}
	reconciler{e}.reconcile(t.Context(), e.site(ledgerKey), &agentv1.RoleGrant{Driver: "shelf", Protection: agentv1.Protection_PROTECTION_ASYNCHRONOUS,
		Dataset: &agentv1.DatasetKey{Namespace: ledgerKey.namespace, Name: ledgerKey.name}})
	if o.signed != 0 {
		t.Error("a certificate is signed")
	}
}

// slowSecrets answers nobody until it is released.
type slowSecrets struct {
	*office
	asked            atomic.Int32
	entered, release chan struct{}
}

func (s *slowSecrets) Secret(context.Context, string, string) (map[string][]byte, error) {
	s.asked.Add(1)
	s.entered <- struct{}{}
	<-s.release
	return nil, errors.New("not now")
}

// When the certificates of many guards are due at once, they do not all wait for the API
// server until their time is over.
func TestFewCertificatesAreLookedAtAtOnce(t *testing.T) {
	o := newOffice(t)
	secrets := &slowSecrets{office: o, entered: make(chan struct{}, 4*certifyAtOnce), release: make(chan struct{})}
	e, err := New(Config{Cluster: "north-1", Replica: "agent-0", Listen: "127.0.0.1:0", Identity: o, Certificates: o, Secrets: secrets, Active: func() bool { return true }})
	if err != nil {
		t.Fatal(err)
	}
	var looking sync.WaitGroup
	for i := range certifyAtOnce {
		looking.Go(func() { _ = certifier{e}.certify(t.Context(), e.site(key{"pay", fmt.Sprint(i)})) })
	}
	for range certifyAtOnce {
		<-secrets.entered
	}
	for i := range certifyAtOnce {
		if err := (certifier{e}).certify(t.Context(), e.site(key{"pay", fmt.Sprint(certifyAtOnce + i)})); err != nil {
			t.Error(err)
		}
	}
	if got := secrets.asked.Load(); got != certifyAtOnce {
		t.Errorf("%d are looked at at once", got)
	}
	close(secrets.release)
	looking.Wait()
	if err := (certifier{e}).certify(t.Context(), e.site(key{"pay", fmt.Sprint(certifyAtOnce)})); err == nil {
		t.Error("one that was left out is not looked at later")
	}
}
