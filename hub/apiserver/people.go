package apiserver

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	listers "k8s.io/client-go/listers/core/v1"

	"tripod.dev/tripod/hub/api/denial"
)

// tokenCacheSeconds is how long a token that was good counts as good without being
// looked at again. Upstream's ten seconds are longer than a revocation may take.
const tokenCacheSeconds = 2

// people is upstream's authenticator with two rules more: nobody from a company's
// directory gets a name or a group of the hub's own, whatever the issuer's
// configuration makes of a claim; and who is on the list of the denied is nobody.
type people struct {
	next authenticator.Request
	// secrets is set before the first request.
	secrets func() listers.SecretLister
	list    atomic.Pointer[parsedDenial]
}

type parsedDenial struct {
	from *corev1.Secret
	list denial.List
}

var errReserved = errors.New("a token of an issuer names a user or a group of the hub's own (system:, tripod:): give the issuer's claims a prefix")

// AuthenticateRequest implements authenticator.Request.
func (p *people) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	token := bearerOf(r.Header) // upstream takes it away
	response, ok, err := p.next.AuthenticateRequest(r)
	if err != nil || !ok {
		return response, ok, err
	}
	if issued(token) && reserved(response.User) {
		return nil, false, fmt.Errorf("user %q: %w", response.User.GetName(), errReserved)
	}
	if why := p.denied().Denies(response.User.GetName(), credentials(response.User)); why != "" {
		return nil, false, fmt.Errorf("%s is denied: see Secret %s/%s", why, denial.Namespace, denial.Name)
	}
	return response, true, nil
}

func (p *people) denied() denial.List {
	secret, err := p.secrets().Secrets(denial.Namespace).Get(denial.Name)
	if err != nil {
		return denial.List{} // there is none: the informer has synced before the server is ready
	}
	if known := p.list.Load(); known != nil && known.from == secret {
		return known.list
	}
	parsed := &parsedDenial{from: secret, list: denial.Parse(secret)}
	p.list.Store(parsed)
	return parsed.list
}

// Believe says why who shows a certificate, which TLS has verified, is not to be
// believed: it, or whom it names, is on the list of the denied. It needs nothing
// but memory.
func (s *Server) Believe(certificate *x509.Certificate) error {
	id := fmt.Sprintf("X509SHA256=%x", sha256.Sum256(certificate.Raw)) // as upstream's authenticator names it
	if why := s.chain.people.denied().Denies(certificate.Subject.CommonName, []string{id}); why != "" {
		return fmt.Errorf("%s is denied: see Secret %s/%s", why, denial.Namespace, denial.Name)
	}
	return nil
}

func credentials(u user.Info) []string { return u.GetExtra()[user.CredentialIDKey] }

func bearerOf(header http.Header) string {
	kind, token, _ := strings.Cut(strings.TrimSpace(header.Get("Authorization")), " ")
	if strings.EqualFold(kind, "bearer") {
		return strings.TrimSpace(token)
	}
	for _, values := range header.Values("Sec-WebSocket-Protocol") {
		for protocol := range strings.SplitSeq(values, ",") {
			if encoded, ok := strings.CutPrefix(strings.TrimSpace(protocol), "base64url.bearer.authorization.k8s.io."); ok {
				decoded, err := base64.RawURLEncoding.DecodeString(encoded)
				if err == nil {
					return string(decoded)
				}
			}
		}
	}
	return ""
}

// issued is true for a JSON web token that is not a service account's: upstream
// refuses issuers that are named as the hub's own.
func issued(token string) bool {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return false
	}
	var claims struct {
		Issuer string `json:"iss"`
	}
	return json.Unmarshal(payload, &claims) == nil && claims.Issuer != serviceAccountIssuer
}

func reserved(u user.Info) bool {
	own := func(name string) bool {
		return strings.HasPrefix(name, "system:") || strings.HasPrefix(name, "tripod:")
	}
	if own(u.GetName()) {
		return true
	}
	for _, group := range u.GetGroups() {
		if own(group) && group != user.AllAuthenticated {
			return true
		}
	}
	return false
}

// Authenticator is that of all requests. It needs nothing but what this member
// holds in memory.
func (s *Server) Authenticator() authenticator.Request { return s.chain.people }

// lateSecrets is the lister that upstream's informers have once they are made.
type lateSecrets struct{ lister listers.SecretLister }

func (l *lateSecrets) get() listers.SecretLister { return l.lister }
