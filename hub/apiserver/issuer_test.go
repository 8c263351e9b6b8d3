package apiserver

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"tripod.dev/tripod/hub/api/denial"
	"tripod.dev/tripod/test/directory"
)

// issuer is a directory that the hub is configured to believe.
type issuer struct {
	*directory.Directory
	t *testing.T
}

func newIssuer(t *testing.T) *issuer { return &issuer{directory.New(t), t} }

func encode64(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

// jwt makes an entry of the AuthenticationConfiguration, with CEL.
func (i *issuer) jwt(username, groups string) string {
	return fmt.Sprintf(`- issuer:
    url: %s
    audiences: [tripod]
    certificateAuthority: |
      %s
  claimValidationRules:
  - {expression: "has(claims.verified) && claims.verified", message: the address must be verified}
  claimMappings:
    username: {expression: %q}
    groups: {expression: %q}
    extra:
    - {key: example.test/tenant, valueExpression: "claims.?tenant.orValue('none')"}
  userValidationRules:
  - {expression: "!user.username.startsWith('bot:')", message: no robots}
`, i.URL, strings.ReplaceAll(strings.TrimSpace(string(i.CA)), "\n", "\n      "), username, groups)
}

// claims are good, but for what changes says.
func (i *issuer) claims(changes map[string]any) map[string]any {
	claims := map[string]any{"iss": i.URL, "aud": "tripod", "sub": "ann", "verified": true, "roles": []string{"sre"}, "tenant": "pay",
		"exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix()}
	for key, value := range changes {
		claims[key] = value
	}
	return claims
}

func (i *issuer) token(claims map[string]any) string { return i.Token(i.t, claims) }

func unsigned(t *testing.T, header string, claims map[string]any) string {
	t.Helper()
	body, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	return encode64([]byte(header)) + "." + encode64(body)
}

func (h *hub) whoIs(ctx context.Context, token string) (authenticationv1.UserInfo, error) {
	config := &rest.Config{Host: "https://" + h.server.Address(), BearerToken: token, QPS: -1, TLSClientConfig: rest.TLSClientConfig{CAData: h.authority.PEM()}}
	review, err := kubernetes.NewForConfigOrDie(config).AuthenticationV1().SelfSubjectReviews().Create(ctx, selfReview(), metav1.CreateOptions{})
	if err != nil {
		return authenticationv1.UserInfo{}, err
	}
	return review.Status.UserInfo, nil
}

const configurationHead = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n"

// TestIssuers: people come from the company's directories by tokens that the hub
// verifies itself, and from nowhere else.
func TestIssuers(t *testing.T) {
	first, second := newIssuer(t), newIssuer(t)
	file := filepath.Join(t.TempDir(), "authentication.yaml")
	write := func(text string) {
		next := file + ".next"
		if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, file); err != nil {
			t.Fatal(err)
		}
	}
	one := configurationHead + first.jwt("'oidc:' + claims.sub", "dyn(claims.roles).map(r, 'oidc:' + string(r))")
	write(one)
	h := startHub(t, func(c *Config) { c.AuthenticationConfig = file })
	eventually(t, "the issuer's keys are known", func(ctx context.Context) string {
		got, err := h.whoIs(ctx, first.token(first.claims(nil)))
		if err != nil {
			return err.Error()
		}
		if got.Username != "oidc:ann" || !slices.Contains(got.Groups, "oidc:sre") || got.Extra["example.test/tenant"][0] != "pay" {
			t.Fatalf("the hub takes ann for %+v", got)
		}
		return ""
	})
	good := first.claims(nil)
	text := unsigned(t, `{"alg":"none","typ":"JWT"}`, good)
	for name, token := range map[string]string{
		"another audience":          first.token(first.claims(map[string]any{"aud": "elsewhere"})),
		"no audience":               first.token(first.claims(map[string]any{"aud": ""})),
		"expired":                   first.token(first.claims(map[string]any{"exp": time.Now().Add(-time.Minute).Unix()})),
		"not yet valid":             first.token(first.claims(map[string]any{"nbf": time.Now().Add(time.Hour).Unix()})),
		"the algorithm none":        text + ".",
		"none with a signature":     text + "." + strings.Split(first.token(good), ".")[2],
		"another key":               second.token(good),
		"an issuer that is unknown": second.token(second.claims(nil)),
		"a claim that a rule wants": first.token(first.claims(map[string]any{"verified": false})),
		"no signature":              unsigned(t, `{"alg":"ES256","kid":"1"}`, good),
		"an empty signature":        unsigned(t, `{"alg":"ES256","kid":"1"}`, good) + ".",
		"the hub's own issuer":      first.token(first.claims(map[string]any{"iss": serviceAccountIssuer})),
		"not a token":               "a.b.c",
	} {
		if got, err := h.whoIs(t.Context(), token); !apierrors.IsUnauthorized(err) {
			t.Errorf("%s: the hub takes it for %+v, %v", name, got, err)
		}
	}

	// A second issuer, whose claims are taken as they are, without a restart.
	write(one + second.jwt("claims.sub", "claims.roles"))
	eventually(t, "the second issuer is known", func(ctx context.Context) string {
		got, err := h.whoIs(ctx, second.token(second.claims(map[string]any{"sub": "bob"})))
		if err != nil {
			return err.Error()
		}
		if got.Username != "bob" || !slices.Contains(got.Groups, "sre") {
			t.Fatalf("the hub takes bob for %+v", got)
		}
		return ""
	})
	for name, changes := range map[string]map[string]any{
		"the masters":            {"roles": []string{"sre", "system:masters"}},
		"the hub's members":      {"roles": []string{"tripod:members"}},
		"an administrator":       {"sub": "tripod:admin"},
		"an agent":               {"sub": "tripod:agent:north-1"},
		"a service account":      {"sub": "system:serviceaccount:kube-system:default"},
		"a rule of the issuer's": {"sub": "bot:1"},
	} {
		if got, err := h.whoIs(t.Context(), second.token(second.claims(changes))); !apierrors.IsUnauthorized(err) {
			t.Errorf("%s: the hub takes it for %+v, %v", name, got, err)
		}
	}
	write("not a configuration")
	if _, err := h.whoIs(t.Context(), first.token(first.claims(map[string]any{"sub": "cat"}))); err != nil {
		t.Errorf("a broken file takes what is in force away: %v", err)
	}
	h.testDenied(t, first)
}

// testDenied: who is on the list is nobody, by whatever credential, and one
// credential alone.
func (h *hub) testDenied(t *testing.T, i *issuer) {
	secrets := kubernetes.NewForConfigOrDie(h.admin()).CoreV1().Secrets(denial.Namespace)
	dan, danToo := h.as("dan"), i.token(i.claims(map[string]any{"sub": "dan"}))
	review := func(config *rest.Config) error {
		_, err := kubernetes.NewForConfigOrDie(config).AuthenticationV1().SelfSubjectReviews().Create(t.Context(), selfReview(), metav1.CreateOptions{})
		return err
	}
	if err := review(dan); err != nil {
		t.Fatal(err)
	}
	stolen := i.token(i.claims(map[string]any{"sub": "eve", "jti": "stolen"}))
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: denial.Namespace, Name: denial.Name},
		Data: map[string][]byte{denial.Key: []byte("# left the company\n" + denial.Line("dan", "") + "\n" + denial.Line("", "JTI=stolen") + "\n")}}
	if _, err := secrets.Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "dan is denied", func(ctx context.Context) string {
		if err := review(dan); !apierrors.IsUnauthorized(err) {
			return fmt.Sprint(err)
		}
		return ""
	})
	if _, err := h.whoIs(t.Context(), stolen); !apierrors.IsUnauthorized(err) {
		t.Errorf("a denied token: %v", err)
	}
	if _, err := h.whoIs(t.Context(), i.token(i.claims(map[string]any{"sub": "eve", "jti": "another"}))); err != nil {
		t.Errorf("another token of who has a denied one: %v", err)
	}
	if got, err := h.whoIs(t.Context(), danToo); err != nil || got.Username != "oidc:dan" {
		t.Errorf("another user of nearly the name: %+v, %v", got, err)
	}
}
