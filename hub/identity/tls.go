package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ServerTLS serves with the member's current certificate. A client may show a
// certificate; if it does, it must be of the hub's CA and name a peer (see
// ParsePeer). Who must show one is for the protocol to decide: RequirePeer. Its
// ClientCAs are those of now; a server that lives on asks Roots at each handshake.
func (i *Identity) ServerTLS(nextProtos ...string) *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		NextProtos:     nextProtos,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return i.member.Load(), nil },
		ClientAuth:     tls.VerifyClientCertIfGiven,
		ClientCAs:      i.Roots(),
		Time:           i.config.Now,
		// A ticket would stand for a certificate whose CA may have been dropped.
		SessionTicketsDisabled: true,
	}
}

// ClientTLS dials with the member's current certificate. The server must have
// a certificate of the hub's CA for serverName; if serverName is empty,
// tls.Dial takes it from the address, as usual. Its RootCAs are those of now.
func (i *Identity) ClientTLS(serverName string, nextProtos ...string) *tls.Config {
	return &tls.Config{
		MinVersion:           tls.VersionTLS13,
		NextProtos:           nextProtos,
		ServerName:           serverName,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return i.ClientCertificate(), nil },
		RootCAs:              i.Roots(),
		Time:                 i.config.Now,
	}
}

// PeerTLS serves and dials. The other side must show a certificate of the
// hub's CA that names one of kinds; none given means a hub member. A server is
// recognised by its kind, not by its address: every member holds the CA, so a
// name proves no more than the kind does. Callers that care which agent they
// speak with ask RequirePeer.
func (i *Identity) PeerTLS(kinds ...Kind) *tls.Config {
	if len(kinds) == 0 {
		kinds = []Kind{KindMember}
	}
	config := i.ServerTLS()
	config.ClientAuth = tls.RequireAnyClientCert
	// With the CA, so that the failure can say which one the other side has.
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return i.member.Load(), nil }
	config.RootCAs = i.Roots()
	// Chain and name are verified below, the same way in both directions, and the
	// failure can say which CA the other side has.
	config.InsecureSkipVerify = true
	config.VerifyConnection = func(state tls.ConnectionState) error { return i.verifyPeer(state, kinds) }
	return config
}

// verifyPeer is the check of PeerTLS.
func (i *Identity) verifyPeer(state tls.ConnectionState, kinds []Kind) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("identity: the peer shows no certificate: it must have one of the hub's CA")
	}
	cert := state.PeerCertificates[0]
	if _, err := cert.Verify(x509.VerifyOptions{
		Roots:       i.Roots(),
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		CurrentTime: i.config.Now(),
	}); err != nil {
		return i.explain(state.PeerCertificates, err)
	}
	peer, err := ParsePeer(cert)
	if err != nil {
		return err
	}
	if !slices.Contains(kinds, peer.Kind) {
		return fmt.Errorf("identity: the peer is %q, wants one of %q", cert.Subject.CommonName, kinds)
	}
	return nil
}

// explain says which CA the peer's certificate is from.
func (i *Identity) explain(chain []*x509.Certificate, err error) error {
	var unknown x509.UnknownAuthorityError
	if !errors.As(err, &unknown) {
		return fmt.Errorf("identity: certificate of %q: %w", chain[0].Subject.CommonName, err)
	}
	theirs := "unknown"
	if last := chain[len(chain)-1]; last.IsCA {
		theirs = Fingerprint(last)
	}
	return fmt.Errorf("identity: the certificate of %q is from another hub's CA (%s; this hub's is %s): "+
		"if it is a member of this hub, stop it, empty its data directory and start it again",
		chain[0].Subject.CommonName, theirs, strings.Join(i.trust.Load().fingerprints(), ", "))
}

// RequirePeer says who is at the other end of a connection that ServerTLS
// or PeerTLS accepted, and fails unless it is of one of kinds.
func RequirePeer(state tls.ConnectionState, kinds ...Kind) (Peer, error) {
	if len(state.PeerCertificates) == 0 {
		return Peer{}, fmt.Errorf("identity: the peer shows no certificate of the hub's CA, wants one of %q", kinds)
	}
	peer, err := ParsePeer(state.PeerCertificates[0])
	if err != nil {
		return Peer{}, err
	}
	if !slices.Contains(kinds, peer.Kind) {
		return Peer{}, fmt.Errorf("identity: the peer is %q, wants one of %q", peer.CommonName(), kinds)
	}
	return peer, nil
}
