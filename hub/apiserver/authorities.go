package apiserver

import (
	"crypto/x509"

	"k8s.io/apiserver/pkg/server/dynamiccertificates"
)

// Authorities are the CAs of client certificates, as of each call.
type Authorities interface {
	Roots() *x509.CertPool
	// RootsPEM are the same.
	RootsPEM() []byte
}

// clientAuthorities gives upstream the CAs of now at each request: a file would be
// followed up to a minute later.
type clientAuthorities struct{ Authorities }

var _ dynamiccertificates.CAContentProvider = clientAuthorities{}

// Name implements dynamiccertificates.CAContentProvider.
func (clientAuthorities) Name() string { return "the hub's CAs" }

// CurrentCABundleContent implements dynamiccertificates.CAContentProvider. Clients
// are told these names as a hint only; all of the hub's CAs have the same.
func (c clientAuthorities) CurrentCABundleContent() []byte { return c.RootsPEM() }

// VerifyOptions implements dynamiccertificates.CAContentProvider.
func (c clientAuthorities) VerifyOptions() (x509.VerifyOptions, bool) {
	return x509.VerifyOptions{Roots: c.Roots(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, true
}

// AddListener implements dynamiccertificates.Notifier; nothing is kept that would
// have to be told.
func (clientAuthorities) AddListener(dynamiccertificates.Listener) {}
