package security

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// TestTokensThatAreNone: empty ones, the algorithm "none", a signature by the public
// key as if it were a secret, another's claims under a good signature.
func TestTokensThatAreNone(t *testing.T) {
	h := attacked(t)
	accounts := h.kube(t, h.admin).CoreV1().ServiceAccounts("default")
	if _, err := accounts.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "someone"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	issued, err := accounts.CreateToken(t.Context(), "someone", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(issued.Status.Token, ".")
	encode := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	other := encode(strings.ReplaceAll(string(claims), "someone", "default"))
	key, err := os.ReadFile(filepath.Join(h.Data, "pki", "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	confused := encode(`{"alg":"HS256","typ":"JWT"}`) + "." + parts[1]
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(confused))

	client, err := rest.HTTPClientFor(h.anonymous())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(authorization ...string) int {
		var header []string
		for _, value := range authorization {
			header = append(header, "Authorization", value)
		}
		return answer(t, client, "GET", h.anonymous().Host+"/apis/authentication.k8s.io/v1/selfsubjectreviews", header...)
	}
	// The test can fail: a good token is somebody (who may not get reviews).
	if code := ask("Bearer " + issued.Status.Token); code == http.StatusUnauthorized {
		t.Fatalf("a good token: got %d", code)
	}
	for name, authorization := range map[string]string{
		"null":                            "Bearer null",
		"undefined":                       "Bearer undefined",
		"dots":                            "Bearer ..",
		"none without a signature":        "Bearer " + encode(`{"alg":"none","typ":"JWT"}`) + "." + parts[1] + ".",
		"None in another case":            "Bearer " + encode(`{"alg":"nOnE"}`) + "." + parts[1] + ".",
		"none with a signature":           "Bearer " + encode(`{"alg":"none"}`) + "." + parts[1] + "." + parts[2],
		"an empty algorithm":              "Bearer " + encode(`{"alg":""}`) + "." + parts[1] + "." + parts[2],
		"the public key as a secret":      "Bearer " + confused + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)),
		"another's claims":                "Bearer " + parts[0] + "." + other + "." + parts[2],
		"a key of the client's own (jwk)": "Bearer " + encode(`{"alg":"ES256","jwk":{"kty":"EC"}}`) + "." + parts[1] + "." + parts[2],
		"a key from a URL (jku)":          "Bearer " + encode(`{"alg":"ES256","jku":"http://127.0.0.1/"}`) + "." + parts[1] + "." + parts[2],
		"a cut signature":                 "Bearer " + parts[0] + "." + parts[1] + "." + parts[2][:10],
		"a join token that is none":       "Bearer aaaaaa.bbbbbbbbbbbbbbbb",
		"two tokens":                      "Bearer " + parts[0] + ", Bearer " + issued.Status.Token,
	} {
		if code := ask(authorization); code != http.StatusUnauthorized {
			t.Errorf("%s: got %d", name, code)
		}
	}
	// These are as if nothing was sent: nobody, who may do nothing.
	for _, authorization := range []string{"", "Bearer", "Bearer ", "Basic YWRtaW46YWRtaW4=", "Negotiate x", "bearer:" + issued.Status.Token} {
		if code := ask(authorization); code != http.StatusForbidden && code != http.StatusUnauthorized {
			t.Errorf("%q: got %d", authorization, code)
		}
	}
}
