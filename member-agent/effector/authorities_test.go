package effector

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"testing"
	"time"

	"tripod.dev/tripod/failover/guard"
	"tripod.dev/tripod/test/authority"
)

// rotating is a cluster whose hub changes its CA: its agent's identity, its Secrets and
// the hub's signer.
type rotating struct {
	trusted []*authority.Authority
	issuer  *authority.Authority
	due     bool
	secret  map[string][]byte
	broken  error
}

func (r *rotating) ServingCertificate() (*tls.Certificate, error) {
	return nil, errors.New("not asked")
}

func (r *rotating) Authority() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, ca := range r.trusted {
		pool.AddCert(ca.Certificate)
	}
	return pool
}

func (r *rotating) AuthorityPEM() (text []byte) {
	for _, ca := range r.trusted {
		text = append(text, ca.PEM()...)
	}
	return text
}

func (r *rotating) Outdated(leaf *x509.Certificate) (outdated, due bool) {
	outdated = leaf.CheckSignatureFrom(r.issuer.Certificate) != nil
	return outdated, outdated && r.due
}

func (r *rotating) GuardCertificate(_ context.Context, _, _ string, request []byte) (certificate, ca []byte, err error) {
	block, _ := pem.Decode(request)
	parsed, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, nil, err
	}
	der, err := r.issuer.Sign(&x509.Certificate{Subject: parsed.Subject}, parsed.PublicKey)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), r.AuthorityPEM(), err
}

func (r *rotating) Secret(context.Context, string, string) (map[string][]byte, error) {
	return r.secret, r.broken
}

func (r *rotating) PutSecret(_ context.Context, _, _ string, data map[string][]byte) error {
	r.secret = maps.Clone(data)
	return nil
}

// TestGuardsFollowTheHubsCA: they are told first, their certificate follows when it is
// due, and until then they are named.
func TestGuardsFollowTheHubsCA(t *testing.T) {
	before, after := authority.New(t, "hub"), authority.New(t, "hub")
	r := &rotating{trusted: []*authority.Authority{before}, issuer: before}
	e := &Effector{sites: map[key]*site{}, cfg: Config{Cluster: "north", Identity: r, Certificates: r, Secrets: r, Hubs: func() []string { return []string{"192.0.2.1:6444"} }, Log: slog.New(slog.DiscardHandler)}}
	s := e.site(key{"pay", "db"})
	look := func(want ...string) {
		t.Helper()
		s.certified = time.Time{} // a minute has passed
		if err := (certifier{e}).certify(t.Context(), s); (err != nil) != (r.broken != nil) {
			t.Fatal(err)
		}
		if got := e.GuardsBehind(); !slices.Equal(got, want) {
			t.Fatalf("behind are %q, want %q", got, want)
		}
	}
	look()
	if string(r.secret[guard.HubsFile]) != "192.0.2.1:6444" {
		t.Errorf("the guard is told that the hub is at %q", r.secret[guard.HubsFile])
	}
	first := r.secret["tls.crt"]
	look()
	r.trusted, r.issuer = []*authority.Authority{after, before}, after
	look("the guard of pay/db is about to be told the new CA")
	if !bytes.Equal(r.secret["ca.crt"], r.AuthorityPEM()) || !bytes.Equal(r.secret["tls.crt"], first) {
		t.Error("the guard was not told both CAs, or has a new certificate already")
	}
	look("the guard of pay/db has a certificate of the old CA")
	r.broken = errors.New("the API server is away")
	look("the certificate of the guard of pay/db: read Secret pay/tripod-guard-db: the API server is away")
	r.broken, r.due = nil, true
	look()
	if leaf := leafOf(r.secret); leaf == nil || leaf.CheckSignatureFrom(after.Certificate) != nil {
		t.Error("the certificate is not of the new CA")
	}
	r.trusted = []*authority.Authority{after}
	look("the guard of pay/db is about to be told the new CA")
	look()
}
