package effector

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"testing"
	"time"

	"tripod.dev/tripod/failover/guard"
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
	e, err := New(Config{Cluster: "north-1", Replica: "agent-0", Identity: o, Certificates: o, Secrets: o,
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
