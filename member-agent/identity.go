package memberagent

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"tripod.dev/tripod/hub/api/endpoint"
)

// credentials are the agent's certificate and the hub's CA, as of now. They are
// replaced as a whole when the certificate is renewed; connections that are open
// keep what they were opened with. It is safe for concurrent use.
type credentials struct {
	present atomic.Pointer[identity]
}

// identity is immutable.
type identity struct {
	certificate  tls.Certificate
	authority    *x509.CertPool
	authorityPEM []byte
}

func parseIdentity(certPEM, keyPEM, caPEM []byte) (*identity, error) {
	certificate, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("read the agent's certificate: %w", err)
	}
	if certificate.Leaf == nil {
		return nil, errors.New("read the agent's certificate: it has no leaf")
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(caPEM) {
		return nil, errors.New("read the hub's CA: no certificate in it")
	}
	return &identity{certificate, pool, caPEM}, nil
}

// renewAt is when two thirds of the certificate's life are over.
func (i *identity) renewAt() time.Time {
	leaf := i.certificate.Leaf
	return leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) * 2 / 3)
}

func (i *identity) expired(now time.Time) bool { return now.After(i.certificate.Leaf.NotAfter) }

var errNoIdentity = errors.New("the agent has not joined the hub yet")

// ServingCertificate is what the agent shows to guards.
func (c *credentials) ServingCertificate() (*tls.Certificate, error) {
	i := c.present.Load()
	if i == nil {
		return nil, errNoIdentity
	}
	return &i.certificate, nil
}

// Authority is the hub's CA; empty before the agent has joined.
func (c *credentials) Authority() *x509.CertPool {
	if i := c.present.Load(); i != nil {
		return i.authority
	}
	return x509.NewCertPool()
}

// clientTLS dials hub members as the agent. The CA is the one of now: it does
// not change while the agent belongs to one hub.
func (c *credentials) clientTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		RootCAs:    c.Authority(),
		ServerName: endpoint.ServerName,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return c.ServingCertificate()
		},
	}
}

func encodeCertificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
