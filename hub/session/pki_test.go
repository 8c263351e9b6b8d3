package session_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"tripod.dev/tripod/hub/session"
)

// authority is a CA for one test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{t, cert, key, pool}
}

func (a *authority) issue(name, organisation string) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name, Organization: []string{organisation}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) server(name string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{a.issue("tripod:member:"+name, "tripod:members")},
		ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: a.pool,
	}
}

func (a *authority) client(commonName, organisation string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: a.pool, ServerName: "127.0.0.1",
		Certificates: []tls.Certificate{a.issue(commonName, organisation)},
	}
}

func (a *authority) agent(cluster string) *tls.Config {
	return a.client("tripod:agent:"+cluster, "tripod:agents")
}

func identify(cert *x509.Certificate) (session.Identity, error) {
	name := cert.Subject.CommonName
	switch {
	case strings.HasPrefix(name, "tripod:agent:"):
		return session.Identity{Cluster: strings.TrimPrefix(name, "tripod:agent:")}, nil
	case strings.HasPrefix(name, "tripod:member:"):
		return session.Identity{Member: strings.TrimPrefix(name, "tripod:member:")}, nil
	}
	if parts := strings.Split(strings.TrimPrefix(name, "tripod:guard:"), ":"); len(parts) == 3 {
		return session.Identity{Guard: session.GuardIdentity{Cluster: parts[0], Namespace: parts[1], Dataset: parts[2]}}, nil
	}
	return session.Identity{}, fmt.Errorf("unknown name %q", name)
}
