package apiserver

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"net/http"
	"slices"
	"sync"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
)

const (
	// vouchedFor is how long a client's certificate that was verified counts as
	// verified: a check of its signature for every request would be a sixth of what a
	// request costs. It is as long as a token that was good counts as good.
	vouchedFor = tokenCacheSeconds * time.Second
	// vouchedMost is how many certificates are remembered at most.
	vouchedMost = 4096
)

// vouched remembers whom a client's certificate was verified as. A memory counts only
// for exactly the certificates that were presented, under exactly the CAs that are in
// force, and not beyond the expiry of any of them; so what it lets in is what would
// be let in without it. Who is denied is judged above it, for every request.
type vouched struct {
	next authenticator.Request
	// authorities are those that next verifies by.
	authorities dynamiccertificates.CAContentProvider
	now         func() time.Time

	mu    sync.RWMutex
	known map[*x509.Certificate]*voucher // by the client's own
	swept time.Time
}

type voucher struct {
	presented []*x509.Certificate
	roots     *x509.CertPool
	// until is the first moment at which it does not count.
	until    time.Time
	response *authenticator.Response
}

func newVouched(next authenticator.Request, authorities dynamiccertificates.CAContentProvider) *vouched {
	return &vouched{next: next, authorities: authorities, now: time.Now, known: map[*x509.Certificate]*voucher{}}
}

// AuthenticateRequest implements authenticator.Request. Responses are shared among
// requests, as those of upstream's token cache are.
func (v *vouched) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return v.next.AuthenticateRequest(r)
	}
	options, ok := v.authorities.VerifyOptions()
	if !ok || options.Roots == nil {
		return v.next.AuthenticateRequest(r)
	}
	presented, now := r.TLS.PeerCertificates, v.now()
	v.mu.RLock()
	known := v.known[presented[0]]
	v.mu.RUnlock()
	if known != nil && known.counts(presented, options.Roots, now) {
		return known.response, true, nil
	}
	response, ok, err := v.next.AuthenticateRequest(r)
	// A certificate that says nothing may come with a token that does.
	if err == nil && ok && byCertificate(response, presented[0]) {
		v.remember(now, &voucher{presented: slices.Clone(presented), roots: options.Roots, until: v.until(now, presented), response: response})
	}
	return response, ok, err
}

func (v *voucher) counts(presented []*x509.Certificate, roots *x509.CertPool, now time.Time) bool {
	return v.roots == roots && now.Before(v.until) && slices.Equal(v.presented, presented)
}

// until is when what was verified now has to be verified again: when one of the
// certificates that it may rest on expires, if that is sooner than vouchedFor.
func (v *vouched) until(now time.Time, presented []*x509.Certificate) time.Time {
	until := now.Add(vouchedFor)
	sooner := func(c *x509.Certificate) {
		if c.NotAfter.After(now) && c.NotAfter.Before(until) {
			until = c.NotAfter
		}
	}
	for _, c := range presented {
		sooner(c)
	}
	for rest := v.authorities.CurrentCABundleContent(); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return until
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			sooner(c)
		}
	}
}

func (v *vouched) remember(now time.Time, one *voucher) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if now.Sub(v.swept) >= vouchedFor || len(v.known) >= vouchedMost {
		v.swept = now
		for leaf, old := range v.known {
			if !now.Before(old.until) {
				delete(v.known, leaf)
			}
		}
	}
	if len(v.known) < vouchedMost {
		v.known[one.presented[0]] = one
	}
}

// byCertificate is true if it was leaf that response rests on.
func byCertificate(response *authenticator.Response, leaf *x509.Certificate) bool {
	sum := sha256.Sum256(leaf.Raw)
	return slices.Equal(response.User.GetExtra()[user.CredentialIDKey], []string{"X509SHA256=" + hex.EncodeToString(sum[:])})
}
