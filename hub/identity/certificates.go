package identity

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Certificate is one that this member holds, or that was shown to it.
type Certificate struct {
	// Name is the common name, Kind what it is for: "ca" or a Kind.
	Name, Kind string
	// Where it is, for people.
	Where               string
	NotBefore, NotAfter time.Time
	// Renewal says who renews it.
	Renewal string
	// Shown is when it was last shown to this member; zero for the member's own.
	Shown time.Time
}

// kindAuthority is the Kind of the CA's own certificate.
const kindAuthority = "ca"

// Problem says that the certificate should have been renewed by now; empty if it is
// well. Renewal begins with a third of its life left.
func (c Certificate) Problem(now time.Time) string {
	life := c.NotAfter.Sub(c.NotBefore)
	switch {
	case !now.Before(c.NotAfter):
		return fmt.Sprintf("expired %s", c.NotAfter.UTC().Format(time.RFC3339))
	case now.After(c.NotAfter.Add(-life / 4)):
		return fmt.Sprintf("expires %s and was not renewed (%s)", c.NotAfter.UTC().Format(time.RFC3339), c.Renewal)
	}
	return ""
}

// Certificates are the member's own and those that agents, guards and other members
// have shown to it, by name.
func (i *Identity) Certificates() []Certificate {
	of := func(cert *x509.Certificate, kind, where, renewal string) Certificate {
		return Certificate{
			Name: cert.Subject.CommonName, Kind: kind, Where: where,
			NotBefore: cert.NotBefore, NotAfter: cert.NotAfter, Renewal: renewal,
		}
	}
	files := i.Files()
	list := []Certificate{
		of(i.bundle.Authority.cert, kindAuthority, files.CACertificate, "none yet: a new CA means a new hub"),
		of(i.member.Load().Leaf, string(KindMember), "ports 6443, 6444, 6445 and 2379; "+files.MemberCertificate, "by the member itself"),
		of(i.admin.Load(), string(KindAdmin), files.AdminKubeconfig, "by the member itself; copy the file again"),
	}
	return append(list, i.shown.list()...)
}

// Problems are those of the certificates that this member is to renew itself.
func (i *Identity) Problems() []string {
	var out []string
	for _, c := range i.Certificates() {
		if problem := c.Problem(i.config.Now()); c.Shown.IsZero() && problem != "" {
			out = append(out, fmt.Sprintf("certificate %s: %s: see the log of this member", c.Name, problem))
		}
	}
	return out
}

// Shown notes a certificate that a peer has shown and that TLS has verified.
func (i *Identity) Shown(cert *x509.Certificate) { i.shown.note(cert, i.config.Now()) }

// shown remembers the certificate that each peer showed last, until it has been over
// for as long as agents' certificates live.
type shown struct {
	mu     sync.Mutex
	byName map[string]Certificate
}

func (s *shown) note(cert *x509.Certificate, now time.Time) {
	peer, err := ParsePeer(cert)
	if err != nil || peer.Kind == KindAdmin {
		return // people have certificates of other lives, and no Kind of their own
	}
	renewal := map[Kind]string{
		KindMember: "by that member itself", KindAgent: "by the agent, through the hub", KindGuard: "by the agent of its cluster",
	}[peer.Kind]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byName == nil {
		s.byName = map[string]Certificate{}
	}
	for name, c := range s.byName {
		if now.Sub(c.NotAfter) > LeafValidity {
			delete(s.byName, name)
		}
	}
	s.byName[cert.Subject.CommonName] = Certificate{
		Name: cert.Subject.CommonName, Kind: string(peer.Kind), Where: "at " + string(peer.Kind) + " " + peer.place(),
		NotBefore: cert.NotBefore, NotAfter: cert.NotAfter, Renewal: renewal, Shown: now,
	}
}

func (s *shown) list() []Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Certificate
	for _, c := range s.byName {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b Certificate) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// place is where a peer is, for people.
func (p Peer) place() string {
	switch p.Kind {
	case KindMember:
		return p.Name
	case KindGuard:
		return p.Namespace + "/" + p.Dataset + " in cluster " + p.Cluster
	default:
		return "of cluster " + p.Cluster
	}
}
