package storetest

import (
	"crypto/tls"
	"testing"

	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/test/authority"
)

// CA is a certificate authority for tests.
type CA struct{ authority *authority.Authority }

// NewCA makes a fresh authority.
func NewCA(t testing.TB) *CA {
	t.Helper()
	return &CA{authority.New(t, "tripod test CA")}
}

// Member returns the TLS configuration of the hub member called name.
func (c *CA) Member(t testing.TB, name string) *tls.Config {
	return c.Identity(t, "tripod:member:"+name, store.MembersOrganization)
}

// Identity returns a TLS configuration for any subject.
func (c *CA) Identity(t testing.TB, commonName, organization string) *tls.Config {
	t.Helper()
	return &tls.Config{
		Certificates: []tls.Certificate{c.authority.Issue(t, commonName, organization)},
		RootCAs:      c.authority.Pool(), ClientCAs: c.authority.Pool(),
	}
}

// Files writes ca.crt, tls.crt and tls.key for config into dir.
func (c *CA) Files(t testing.TB, config *tls.Config, dir string) {
	t.Helper()
	c.authority.Write(t, dir, config.Certificates[0])
}
