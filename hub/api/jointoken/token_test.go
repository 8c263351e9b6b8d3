package jointoken

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// newChain is a hub's certificate chain, leaf first.
func newChain(t *testing.T, host string) []*x509.Certificate {
	t.Helper()
	make := func(template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if parent == nil {
			parent, parentKey = template, key
		}
		template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(1), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert, key
	}
	ca, key := make(&x509.Certificate{Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, nil)
	leaf, _ := make(&x509.Certificate{Subject: pkix.Name{CommonName: "hub"}, DNSNames: []string{host}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, ca, key)
	return []*x509.Certificate{leaf, ca}
}

func TestTokensSurviveTheirText(t *testing.T) {
	chain := newChain(t, "hub")
	rapid.Check(t, func(t *rapid.T) {
		cluster := rapid.StringMatching(`[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?`).Draw(t, "cluster")
		token, err := New(cluster, chain[1])
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := Parse(" " + token.String() + "\n")
		if diff := cmp.Diff(token, parsed); err != nil || diff != "" {
			t.Fatalf("Parse: %v (-want +got):\n%s", err, diff)
		}
		if other, _ := New(cluster, chain[1]); other.Secret == token.Secret {
			t.Fatal("two tokens with one secret")
		}
	})
}

func TestMalformedTokensNameTheRemedyAndNoSecret(t *testing.T) {
	good, err := New("north-1", newChain(t, "hub")[1])
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"nothing":                   "",
		"a kubeadm token":           good.Bearer(),
		"one cut short":             good.String()[:40],
		"one with a part too many":  good.String() + ".x",
		"one in capitals":           strings.ToUpper(good.String()),
		"one whose hash is cut":     good.String()[:len(good.String())-2],
		"one whose secret is wrong": strings.Replace(good.String(), good.Secret, good.Secret+"x", 1),
	} {
		_, err := Parse(text)
		if err == nil || !strings.Contains(err.Error(), "tripodctl join-token") {
			t.Errorf("%s: %v, wants the remedy", name, err)
			continue
		}
		if strings.Contains(err.Error(), good.Secret) {
			t.Errorf("%s: the error %q shows the secret", name, err)
		}
	}
	if _, err := New("North 1", newChain(t, "hub")[1]); err == nil {
		t.Error("a cluster name that is no DNS label was taken")
	}
	if err := good.ForCluster("south-1"); err == nil || !strings.Contains(err.Error(), `"north-1"`) || !strings.Contains(err.Error(), "tripodctl join-token south-1") {
		t.Errorf("ForCluster: %v, wants both names and the remedy", err)
	}
	if err := good.ForCluster("north-1"); err != nil {
		t.Error(err)
	}
}

func TestThePinKnowsItsHub(t *testing.T) {
	chain, other := newChain(t, "hub"), newChain(t, "hub")
	token, err := New("north-1", chain[1])
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		chain []*x509.Certificate
		host  string
		ok    bool
	}{
		"its hub":                              {chain, "hub", true},
		"its hub under another name":           {chain, "elsewhere", false},
		"another hub":                          {other, "hub", false},
		"another hub that shows the pinned CA": {[]*x509.Certificate{other[0], chain[1]}, "hub", false},
		"a server that shows no CA":            {chain[:1], "hub", false},
		"a server that shows nothing":          {nil, "hub", false},
	} {
		ca, err := token.VerifyChain(test.chain, test.host)
		if (err == nil) != test.ok || (test.ok && !ca.Equal(chain[1])) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheSecretIsABootstrapTokenForOneCluster(t *testing.T) {
	token, err := New("north-1", newChain(t, "hub")[1])
	if err != nil {
		t.Fatal(err)
	}
	expires := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	secret := token.NewSecret(expires, true)
	got := map[string]string{
		"name": secret.Name, "namespace": secret.Namespace, "type": string(secret.Type),
		"cluster": secret.Annotations[AnnotationCluster], "rejoin": secret.Annotations[AnnotationRejoin],
		"expiration": secret.StringData["expiration"], "groups": secret.StringData["auth-extra-groups"],
		"bearer": secret.StringData["token-id"] + "." + secret.StringData["token-secret"],
	}
	want := map[string]string{
		"name": "bootstrap-token-" + token.ID, "namespace": "kube-system", "type": "bootstrap.kubernetes.io/token",
		"cluster": "north-1", "rejoin": "true", "expiration": "2030-01-02T03:04:05Z", "groups": Group, "bearer": token.Bearer(),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Secret (-want +got):\n%s", diff)
	}
	if _, ok := token.NewSecret(expires, false).Annotations[AnnotationRejoin]; ok {
		t.Error("an ordinary token allows a rejoin")
	}
}
