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
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// credentials are the agent's certificate and the hub's CA, as of now. They are
// replaced as a whole when the certificate is renewed; connections that are open
// keep what they were opened with. It is safe for concurrent use.
type credentials struct {
	present atomic.Pointer[identity]
	// told is what a hub member said last of the hub's CAs.
	told atomic.Pointer[agentv1.HubAuthorities]
	// changed has a token when told has changed.
	changed chan struct{}
	// settle is how long after that certificates of a new CA are not shown yet.
	settle time.Duration
}

func newCredentials(settle time.Duration) *credentials {
	return &credentials{changed: make(chan struct{}, 1), settle: settle}
}

// identity is immutable.
type identity struct {
	certificate  tls.Certificate
	authority    *x509.CertPool
	authorityPEM []byte
	// generation is that of the hub's CAs; 0 is the one that the agent joined with.
	generation uint64
	// since is when this process began to trust them; zero until adopt.
	since time.Time
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
	return &identity{certificate: certificate, authority: pool, authorityPEM: caPEM}, nil
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

// clientTLS dials hub members as the agent. The CAs are those of each handshake.
func (c *credentials) clientTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: endpoint.ServerName,
		// RootCAs would be those of now for good.
		InsecureSkipVerify: true,
		VerifyConnection:   func(state tls.ConnectionState) error { return c.verifyHub(state.PeerCertificates) },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return c.ServingCertificate()
		},
	}
}

// verifyHub is what crypto/tls does, with the CAs of now.
func (c *credentials) verifyHub(chain []*x509.Certificate) error {
	if len(chain) == 0 {
		return errors.New("the hub shows no certificate")
	}
	intermediates := x509.NewCertPool()
	for _, cert := range chain[1:] {
		intermediates.AddCert(cert)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: c.Authority(), Intermediates: intermediates, DNSName: endpoint.ServerName}); err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: chain, Err: err}
	}
	return nil
}

func encodeCertificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
