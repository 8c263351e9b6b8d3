package session_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
	"testing"

	"tripod.dev/tripod/hub/session"
	"tripod.dev/tripod/test/authority"
)

// pki is a CA for one test.
type pki struct {
	*authority.Authority
	t *testing.T
}

func newPKI(t *testing.T) *pki {
	t.Helper()
	return &pki{authority.New(t, "test"), t}
}

func (p *pki) server(name string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{p.Issue(p.t, "tripod:member:"+name, "tripod:members")},
		ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: p.Pool(),
	}
}

func (p *pki) client(commonName, organisation string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: p.Pool(), ServerName: "127.0.0.1",
		Certificates: []tls.Certificate{p.Issue(p.t, commonName, organisation)},
	}
}

func (p *pki) agent(cluster string) *tls.Config {
	return p.client("tripod:agent:"+cluster, "tripod:agents")
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
