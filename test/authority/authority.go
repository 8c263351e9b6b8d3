// Package authority is a certificate authority for tests: the hub's, a cluster's,
// or a stranger's.
package authority

import (
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

	"tripod.dev/tripod/hub/api/endpoint"
)

// Authority signs what it is asked for. It is safe for concurrent use.
type Authority struct {
	// Certificate is its own.
	Certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// New makes an authority that lives for an hour.
func New(tb testing.TB, name string) *Authority {
	tb.Helper()
	return NewUntil(tb, name, time.Now().Add(time.Hour))
}

// NewUntil makes an authority that lives until then, to the second.
func NewUntil(tb testing.TB, name string, end time.Time) *Authority {
	tb.Helper()
	a := &Authority{key: newKey(tb)}
	a.Certificate = template(name, end)
	a.Certificate = a.vouch(tb, a.Certificate, a.key)
	return a
}

// Of is the authority that has a certificate and its key already.
func Of(certificate *x509.Certificate, key *ecdsa.PrivateKey) *Authority {
	return &Authority{Certificate: certificate, key: key}
}

// Between makes an authority for which this one vouches.
func (a *Authority) Between(tb testing.TB, name string) *Authority {
	tb.Helper()
	between := &Authority{key: newKey(tb)}
	between.Certificate = a.vouch(tb, template(name, a.Certificate.NotAfter), between.key)
	return between
}

func template(name string, end time.Time) *x509.Certificate {
	return &x509.Certificate{Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Minute), NotAfter: end,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
}

func (a *Authority) vouch(tb testing.TB, template *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	tb.Helper()
	der, err := a.Sign(template, key.Public())
	if err != nil {
		tb.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return certificate
}

// Client makes a client's certificate that lives until then, without its key.
func (a *Authority) Client(tb testing.TB, name string, end time.Time) *x509.Certificate {
	tb.Helper()
	return a.vouch(tb, &x509.Certificate{Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Minute), NotAfter: end,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, newKey(tb))
}

// Sign fills in what the template lacks of serial number and times, and signs it
// for the key.
func (a *Authority) Sign(template *x509.Certificate, public any) (der []byte, err error) {
	if template.SerialNumber == nil {
		if template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
			return nil, err
		}
	}
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	}
	return x509.CreateCertificate(rand.Reader, template, a.Certificate, public, a.key)
}

// Issue makes a certificate with a key of its own, for a client or for a server
// that is called 127.0.0.1, localhost, hub, or as all members of the hub are.
func (a *Authority) Issue(tb testing.TB, name string, groups ...string) tls.Certificate {
	tb.Helper()
	key := newKey(tb)
	der, err := a.Sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name, Organization: groups}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"localhost", "hub", endpoint.ServerName}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, key.Public())
	if err != nil {
		tb.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// Pool believes this authority and no other.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.Certificate)
	return pool
}

// PEM is its certificate.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate.Raw})
}

// Write leaves ca.crt, tls.crt and tls.key of a certificate in a folder.
func (a *Authority) Write(tb testing.TB, dir string, certificate tls.Certificate) {
	tb.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	if err != nil {
		tb.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"ca.crt":  a.PEM(),
		"tls.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]}),
		"tls.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}
