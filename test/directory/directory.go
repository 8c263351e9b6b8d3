// Package directory is a company's directory for tests: an OIDC issuer whose tokens
// say who people are and what groups they are in.
package directory

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
)

// Directory serves its keys until the test ends. It is safe for concurrent use.
type Directory struct {
	// URL is the issuer's.
	URL string
	// CA is PEM, for who verifies the issuer.
	CA []byte

	key *ecdsa.PrivateKey
}

// New starts a directory with one key.
func New(tb testing.TB) *Directory {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	d := &Directory{key: key}
	server := httptest.NewTLSServer(d)
	tb.Cleanup(server.Close)
	d.URL = server.URL
	d.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return d
}

// ServeHTTP answers what verifiers ask.
func (d *Directory) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		_, _ = fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q,"id_token_signing_alg_values_supported":["ES256"],"response_types_supported":["id_token"],"subject_types_supported":["public"]}`, d.URL, d.URL+"/keys")
	case "/keys":
		point, err := d.key.PublicKey.Bytes() // 4, x, y
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = fmt.Fprintf(w, `{"keys":[{"kty":"EC","crv":"P-256","use":"sig","alg":"ES256","kid":"1","x":%q,"y":%q}]}`, encode(point[1:33]), encode(point[33:]))
	default:
		http.NotFound(w, r)
	}
}

// Token signs the claims, whatever they say.
func (d *Directory) Token(tb testing.TB, claims map[string]any) string {
	tb.Helper()
	body, err := json.Marshal(claims)
	if err != nil {
		tb.Fatal(err)
	}
	text := encode([]byte(`{"alg":"ES256","kid":"1","typ":"JWT"}`)) + "." + encode(body)
	hash := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, d.key, hash[:])
	if err != nil {
		tb.Fatal(err)
	}
	return text + "." + encode(slices.Concat(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))))
}

func encode(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }
