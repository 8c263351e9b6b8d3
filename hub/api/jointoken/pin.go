package jointoken

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
)

// TLS is for the first connection of a joining agent to the hub, which does
// not know the hub's CA: the server must show a chain to the CA that the token
// pins, and a certificate for serverName. found, if not nil, is given the CA;
// later connections should trust that and nothing else.
func (t Token) TLS(serverName string, found func(ca *x509.Certificate)) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: serverName,
		// The pin in VerifyConnection stands for a root that is not known yet.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			ca, err := t.VerifyChain(state.PeerCertificates, serverName)
			if err == nil && found != nil {
				found(ca)
			}
			return err
		},
	}
}

// VerifyChain returns the CA that t pins, if chain (leaf first) ends in it and
// the leaf is good for serverName. An empty serverName is not checked.
func (t Token) VerifyChain(chain []*x509.Certificate, serverName string) (*x509.Certificate, error) {
	if len(chain) == 0 {
		return nil, errors.New("the hub shows no certificate")
	}
	for _, ca := range chain[1:] {
		if HashCA(ca) != t.CAHash {
			continue
		}
		roots := x509.NewCertPool()
		roots.AddCert(ca)
		if _, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, DNSName: serverName}); err != nil {
			return nil, fmt.Errorf("certificate of the hub: %w", err)
		}
		return ca, nil
	}
	return nil, fmt.Errorf("the hub's CA is not the one that the join token of cluster %q pins (sha256:%s): "+
		"the address is not this hub's, or the token is of another hub: make one there with `tripodctl join-token %s`",
		t.Cluster, hex.EncodeToString(t.CAHash[:]), t.Cluster)
}
