package apiserver

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	x509request "k8s.io/apiserver/pkg/authentication/request/x509"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"

	ca "tripod.dev/tripod/test/authority"
)

// provider gives the same pool until the roots are set anew, as hub/identity does.
type provider struct {
	clientAuthorities
	roots []*ca.Authority
	pool  *x509.CertPool
}

func (p *provider) set(roots ...*ca.Authority) {
	p.roots, p.pool = roots, x509.NewCertPool()
	for _, root := range roots {
		p.pool.AddCert(root.Certificate)
	}
}

func (p *provider) CurrentCABundleContent() (all []byte) {
	for _, root := range p.roots {
		all = append(all, root.PEM()...)
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
	later, soon := start.Add(time.Hour), start.Add(1500*time.Millisecond)
	root, other, rootShort := ca.New(t, "root"), ca.New(t, "other"), ca.NewUntil(t, "root of a moment", soon)
	middle := root.Between(t, "between")
	between := middle.Certificate
	ann, annBetween := root.Client(t, "ann", later), middle.Client(t, "ann", later)
	annShort, annOfShort := root.Client(t, "ann", soon), rootShort.Client(t, "ann", later)

	for name, one := range map[string]struct {
		first, second []*x509.Certificate
		roots         []*ca.Authority
		then          func(p *provider)
		after         time.Duration
		// known: the second request is answered from memory. allowed: it is let in.
		known, allowed bool
	}{
		"the same, at once":             {first: []*x509.Certificate{ann}, roots: []*ca.Authority{root}, known: true, allowed: true},
		"the same, 1.9 s later":         {first: []*x509.Certificate{ann}, roots: []*ca.Authority{root}, after: 1900 * time.Millisecond, known: true, allowed: true},
		"the same, 2 s later":           {first: []*x509.Certificate{ann}, roots: []*ca.Authority{root}, after: 2 * time.Second, allowed: true},
		"its CA is not in force":        {first: []*x509.Certificate{ann}, roots: []*ca.Authority{root}, then: func(p *provider) { p.set(other) }},
		"CAs renewed, its own among it": {first: []*x509.Certificate{ann}, roots: []*ca.Authority{root}, then: func(p *provider) { p.set(other, root) }, allowed: true},
		"it has expired":                {first: []*x509.Certificate{annShort}, roots: []*ca.Authority{root}, after: 1500 * time.Millisecond},
		"its CA has expired":            {first: []*x509.Certificate{annOfShort}, roots: []*ca.Authority{root, rootShort}, after: 1500 * time.Millisecond},
		"with what is between":          {first: []*x509.Certificate{annBetween, between}, roots: []*ca.Authority{root}, known: true, allowed: true},
		"without what is between":       {first: []*x509.Certificate{annBetween, between}, second: []*x509.Certificate{annBetween}, roots: []*ca.Authority{root}},
		"another certificate":           {first: []*x509.Certificate{ann}, second: []*x509.Certificate{annOfShort}, roots: []*ca.Authority{root}},
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

func shown(chain []*x509.Certificate) *http.Request {
	return &http.Request{TLS: &tls.ConnectionState{PeerCertificates: chain}, Header: http.Header{}}
}

// TestOnlyWhatACertificateSaidIsRemembered: a token beside a certificate that says
// nothing is judged each time.
func TestOnlyWhatACertificateSaidIsRemembered(t *testing.T) {
	ann := ca.New(t, "another").Client(t, "ann", time.Now().Add(time.Hour))
	authorities := &provider{}
	authorities.set(ca.New(t, "root"))
	good := true
	v := newVouched(authenticator.RequestFunc(func(*http.Request) (*authenticator.Response, bool, error) {
		return &authenticator.Response{User: &user.DefaultInfo{Name: "by a token"}}, good, nil
	}), authorities)
	if _, ok, _ := v.AuthenticateRequest(shown([]*x509.Certificate{ann})); !ok {
		t.Fatal("the token is refused")
	}
	good = false
	if _, ok, _ := v.AuthenticateRequest(shown([]*x509.Certificate{ann})); ok {
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
