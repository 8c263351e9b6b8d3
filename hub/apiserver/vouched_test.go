package apiserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	x509request "k8s.io/apiserver/pkg/authentication/request/x509"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
)

// issuedPair is a certificate and its key.
type issuedPair struct {
	*x509.Certificate
	key *ecdsa.PrivateKey
}

func issuePair(t *testing.T, name string, notAfter time.Time, by *issuedPair) *issuedPair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: notAfter, BasicConstraintsValid: true, IsCA: name != "ann",
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.Certificate, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &issuedPair{certificate, key}
}

// provider gives the same pool until the roots are set anew, as hub/identity does.
type provider struct {
	clientAuthorities
	roots []*issuedPair
	pool  *x509.CertPool
}

func (p *provider) set(roots ...*issuedPair) {
	p.roots, p.pool = roots, x509.NewCertPool()
	for _, root := range roots {
		p.pool.AddCert(root.Certificate)
	}
}

func (p *provider) CurrentCABundleContent() (all []byte) {
	for _, root := range p.roots {
		all = append(all, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw})...)
	}
	return all
}

func (p *provider) VerifyOptions() (x509.VerifyOptions, bool) {
	return x509.VerifyOptions{Roots: p.pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, true
}

var _ dynamiccertificates.CAContentProvider = &provider{}

// TestAVerifiedCertificateIsRememberedAndNoLonger than the verification would hold.
func TestAVerifiedCertificateIsRememberedAndNoLonger(t *testing.T) {
	start := time.Now()
	later := start.Add(24 * time.Hour)
	root, other := issuePair(t, "root", later, nil), issuePair(t, "other", later, nil)
	between := issuePair(t, "between", later, root)
	ann, annBetween := issuePair(t, "ann", later, root), issuePair(t, "ann", later, between)
	annShort := issuePair(t, "ann", start.Add(1500*time.Millisecond), root)
	rootShort := issuePair(t, "root of a moment", start.Add(1500*time.Millisecond), nil)
	annOfShort := issuePair(t, "ann", later, rootShort)

	for name, one := range map[string]struct {
		first, second []*issuedPair
		roots         []*issuedPair
		then          func(p *provider)
		after         time.Duration
		// known: the second request is answered from memory. allowed: it is let in.
		known, allowed bool
	}{
		"the same, at once":             {first: []*issuedPair{ann}, roots: []*issuedPair{root}, known: true, allowed: true},
		"the same, 1.9 s later":         {first: []*issuedPair{ann}, roots: []*issuedPair{root}, after: 1900 * time.Millisecond, known: true, allowed: true},
		"the same, 2 s later":           {first: []*issuedPair{ann}, roots: []*issuedPair{root}, after: 2 * time.Second, allowed: true},
		"its CA is not in force":        {first: []*issuedPair{ann}, roots: []*issuedPair{root}, then: func(p *provider) { p.set(other) }},
		"CAs renewed, its own among it": {first: []*issuedPair{ann}, roots: []*issuedPair{root}, then: func(p *provider) { p.set(other, root) }, allowed: true},
		"it has expired":                {first: []*issuedPair{annShort}, roots: []*issuedPair{root}, after: 1500 * time.Millisecond},
		"its CA has expired":            {first: []*issuedPair{annOfShort}, roots: []*issuedPair{root, rootShort}, after: 1500 * time.Millisecond},
		"with what is between":          {first: []*issuedPair{annBetween, between}, roots: []*issuedPair{root}, known: true, allowed: true},
		"without what is between":       {first: []*issuedPair{annBetween, between}, second: []*issuedPair{annBetween}, roots: []*issuedPair{root}},
		"another certificate":           {first: []*issuedPair{ann}, second: []*issuedPair{annOfShort}, roots: []*issuedPair{root}},
	} {
		t.Run(name, func(t *testing.T) {
			authorities, asked, clock := &provider{}, 0, start
			authorities.set(one.roots...)
			real := x509request.NewDynamic(func() (x509.VerifyOptions, bool) {
				options, ok := authorities.VerifyOptions()
				options.CurrentTime = clock
				return options, ok
			}, x509request.CommonNameUserConversion)
			v := newVouched(authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
				asked++
				return real.AuthenticateRequest(r)
			}), authorities)
			v.now = func() time.Time { return clock }
			if response, ok, err := v.AuthenticateRequest(shown(one.first)); !ok || err != nil || response.User.GetName() != "ann" {
				t.Fatalf("the first request: %v, %v, %v", response, ok, err)
			}
			if clock = clock.Add(one.after); one.then != nil {
				one.then(authorities)
			}
			if one.second == nil {
				one.second = one.first
			}
			_, ok, err := v.AuthenticateRequest(shown(one.second))
			if ok != one.allowed || ok != (err == nil) {
				t.Errorf("the second request is let in: %v (%v), want %v", ok, err, one.allowed)
			}
			if known := asked == 1; known != one.known {
				t.Errorf("the second request is answered from memory: %v, want %v", known, one.known)
			}
		})
	}
}

func shown(chain []*issuedPair) *http.Request {
	state := &tls.ConnectionState{}
	for _, c := range chain {
		state.PeerCertificates = append(state.PeerCertificates, c.Certificate)
	}
	return &http.Request{TLS: state, Header: http.Header{}}
}

// TestOnlyWhatACertificateSaidIsRemembered: a token beside a certificate that says
// nothing is judged each time.
func TestOnlyWhatACertificateSaidIsRemembered(t *testing.T) {
	ann := issuePair(t, "ann", time.Now().Add(time.Hour), nil)
	authorities := &provider{}
	authorities.set(issuePair(t, "root", time.Now().Add(time.Hour), nil))
	good := true
	v := newVouched(authenticator.RequestFunc(func(*http.Request) (*authenticator.Response, bool, error) {
		return &authenticator.Response{User: &user.DefaultInfo{Name: "by a token"}}, good, nil
	}), authorities)
	if _, ok, _ := v.AuthenticateRequest(shown([]*issuedPair{ann})); !ok {
		t.Fatal("the token is refused")
	}
	good = false
	if _, ok, _ := v.AuthenticateRequest(shown([]*issuedPair{ann})); ok {
		t.Fatal("what a token said is remembered for the certificate beside it")
	}
}

// TestWhatIsRememberedOfCertificatesIsBounded in number and time.
func TestWhatIsRememberedOfCertificatesIsBounded(t *testing.T) {
	clock := time.Now()
	v := newVouched(nil, &provider{})
	v.now = func() time.Time { return clock }
	for range 2 * vouchedMost {
		v.remember(clock, &voucher{presented: []*x509.Certificate{{}}, until: clock.Add(vouchedFor)})
	}
	if len(v.known) != vouchedMost {
		t.Errorf("%d certificates are remembered, want %d", len(v.known), vouchedMost)
	}
	clock = clock.Add(vouchedFor)
	v.remember(clock, &voucher{presented: []*x509.Certificate{{}}, until: clock.Add(vouchedFor)})
	if len(v.known) != 1 {
		t.Errorf("%d certificates are remembered after their time, want 1", len(v.known))
	}
}
