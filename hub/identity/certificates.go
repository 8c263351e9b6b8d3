package identity

import (
	"cmp"
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
	// Issuer is the fingerprint of the CA that signed it; empty when the hub does not
	// trust that any more.
	Issuer string
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
			NotBefore: cert.NotBefore, NotAfter: cert.NotAfter, Renewal: renewal, Issuer: i.IssuerOf(cert),
		}
	}
	files := i.Files()
	var list []Certificate
	for _, authority := range i.trust.Load().held {
		list = append(list, of(authority.cert, kindAuthority, files.CACertificate, "tripodctl hub certificates rotate-ca"))
	}
	list = append(list,
		of(i.member.Load().Leaf, string(KindMember), "ports 6443, 6444, 6445 and 2379; "+files.MemberCertificate, "by the member itself"),
		of(i.admin.Load(), string(KindAdmin), files.AdminKubeconfig, "by the member itself; copy the file again"),
	)
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
	for _, ca := range i.trust.Load().lacking() {
		out = append(out, fmt.Sprintf("this member has not got the key of the CA %s: no member gives it; after a restore, put the pki that was kept with the backup into its data folder", Fingerprint(ca)))
	}
	return out
}

// Shown notes a certificate that a peer has shown and that TLS has verified.
func (i *Identity) Shown(cert *x509.Certificate) {
	now := i.config.Now()
	i.shown.note(cert, i.IssuerOf(cert), now)
	i.ShownByPerson(cert)
}

// ShownByPerson notes one of the CA that is to go; others tell by themselves how far
// they have come.
func (i *Identity) ShownByPerson(cert *x509.Certificate) {
	plan := i.Plan()
	if peer, err := ParsePeer(cert); err == nil && peer.Kind != KindAdmin {
		return
	}
	if plan.Stage >= StageIssue && cert.CheckSignatureFrom(plan.Present) == nil {
		i.old.note(cert, i.config.Now())
	}
}

// Old are the certificates of the CA that is to go, which people and tools have shown
// to this member in the last day.
func (i *Identity) Old() []OldCertificate {
	plan := i.Plan()
	if plan.Stage < StageIssue {
		return nil
	}
	return i.old.list(plan.Present, i.config.Now())
}

// IssuerOf is the fingerprint of the trusted CA that signed cert; empty if none did.
func (i *Identity) IssuerOf(cert *x509.Certificate) string {
	for _, authority := range i.trust.Load().held {
		if cert.CheckSignatureFrom(authority.cert) == nil {
			return authority.Fingerprint()
		}
	}
	return ""
}

// OldCertificate is one of the CA that is to go.
type OldCertificate struct {
	Name, Serial string
	Shown        time.Time
}

// oldUse is how long after its last use an old certificate counts as used: a job that
// runs every day is seen.
const oldUse = 25 * time.Hour

// old remembers the uses of certificates of a CA that is to go.
type old struct {
	mu  sync.Mutex
	use map[string]oldShown // by serial number
}

type oldShown struct {
	cert *x509.Certificate
	at   time.Time
}

func (o *old) note(cert *x509.Certificate, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.use == nil {
		o.use = map[string]oldShown{}
	}
	o.use[cert.SerialNumber.Text(16)] = oldShown{cert, now}
}

// list forgets what is over, or of another CA than the one that is to go.
func (o *old) list(ca *x509.Certificate, now time.Time) (list []OldCertificate) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for serial, shown := range o.use {
		if now.Sub(shown.at) > oldUse || now.After(shown.cert.NotAfter) || shown.cert.CheckSignatureFrom(ca) != nil {
			delete(o.use, serial)
			continue
		}
		list = append(list, OldCertificate{Name: shown.cert.Subject.CommonName, Serial: serial, Shown: shown.at})
	}
	slices.SortFunc(list, func(a, b OldCertificate) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Serial, b.Serial))
	})
	return list
}

// shown remembers the certificate that each peer showed last, until it has been over
// for as long as agents' certificates live.
type shown struct {
	mu     sync.Mutex
	byName map[string]Certificate
}

func (s *shown) note(cert *x509.Certificate, issuer string, now time.Time) {
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
		NotBefore: cert.NotBefore, NotAfter: cert.NotAfter, Renewal: renewal, Issuer: issuer, Shown: now,
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
