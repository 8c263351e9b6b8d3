package apiserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"

	"tripod.dev/tripod/hub/api/jointoken"
	"tripod.dev/tripod/hub/identity"
)

// testJoin is journey 1 of the architecture, with the signer running.
func testJoin(t *testing.T, h *hub) {
	h.runSigner(t)
	h.namespace(t, "ledger")
	for _, name := range []string{"join-1", "join-2"} {
		apply(t, in(h.admin(), clusters, ""), clusterText(name), "test")
	}
	apply(t, in(h.admin(), datasetsResource, "ledger"), strings.Replace(datasetText("db", "postgresql"), "north-1", "join-1", 1), "test")

	token := h.joinToken(t, "join-1", false)
	agent, err := h.request(t, h.bearer(token), "first", identity.SignerAgent, agentSubject("join-1"), identity.AgentNames("join-1"))
	if err != nil {
		t.Fatal(err)
	}
	refusals := []struct {
		name, want string
		config     *rest.Config
		signer     string
		subject    pkix.Name
		dns        []string
	}{
		{"a used token", "was used already", h.bearer(token), identity.SignerAgent, agentSubject("join-1"), nil},
		{"a token of another cluster", `is for cluster "join-2"`, h.bearer(h.joinToken(t, "join-2", false)), identity.SignerAgent, agentSubject("join-1"), nil},
		{"a cluster that has joined", "has joined already", h.bearer(h.joinToken(t, "join-1", false)), identity.SignerAgent, agentSubject("join-1"), nil},
		{"a cluster that the hub does not know", "tripodctl join-token", h.bearer(h.joinToken(t, "join-9", false)), identity.SignerAgent, agentSubject("join-9"), nil},
		{"an agent that wants to be another", "only that agent may", agent, identity.SignerAgent, agentSubject("join-2"), nil},
		{"an agent that wants a member's name", "signs agents only", agent, identity.SignerAgent, pkix.Name{CommonName: "tripod:member:a", Organization: []string{"tripod:agents"}}, nil},
		{"a guard of a dataset that is elsewhere", "has no dataset", agent, identity.SignerGuard, pkix.Name{CommonName: "tripod:guard:join-1:ledger:other", Organization: []string{"tripod:guards"}}, nil},
	}
	for i, test := range refusals {
		_, err := h.request(t, test.config, fmt.Sprint("refused-", i), test.signer, test.subject, test.dns)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want a refusal with %q", test.name, err, test.want)
		}
	}
	if _, err := h.request(t, agent, "renewal", identity.SignerAgent, agentSubject("join-1"), identity.AgentNames("join-1")); err != nil {
		t.Errorf("renewal: %v", err)
	}
	if _, err := h.request(t, agent, "guard", identity.SignerGuard, pkix.Name{CommonName: "tripod:guard:join-1:ledger:db", Organization: []string{"tripod:guards"}}, nil); err != nil {
		t.Errorf("guard: %v", err)
	}
	if _, err := h.request(t, h.bearer(h.joinToken(t, "join-1", true)), "rejoin", identity.SignerAgent, agentSubject("join-1"), nil); err != nil {
		t.Errorf("rejoin with a token that allows it: %v", err)
	}
	if _, err := kubernetes.NewForConfigOrDie(agent).CoreV1().Secrets("kube-system").List(context.Background(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("an agent lists secrets: %v, want forbidden", err)
	}
}

// runSigner signs until the test ends.
func (h *hub) runSigner(t *testing.T) {
	t.Helper()
	signer, err := identity.NewSigner(h.identity, h.server.Loopback())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- signer.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("signer: %v", err)
		}
	})
}

func agentSubject(cluster string) pkix.Name {
	return pkix.Name{CommonName: identity.Agent(cluster), Organization: []string{identity.OrganisationAgents}}
}

func (h *hub) joinToken(t *testing.T, cluster string, rejoin bool) jointoken.Token {
	t.Helper()
	token, err := jointoken.New(cluster, h.authority.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	// As it travels: text, typed into the other cluster.
	if token, err = jointoken.Parse(token.String()); err != nil {
		t.Fatal(err)
	}
	secret := token.NewSecret(time.Now().Add(time.Hour), rejoin)
	if _, err := kubernetes.NewForConfigOrDie(h.admin()).CoreV1().Secrets(secret.Namespace).Create(context.Background(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	// The authenticator reads tokens from a cache.
	client := kubernetes.NewForConfigOrDie(h.bearer(token))
	eventually(t, "the token is known", func(ctx context.Context) string {
		if _, err := client.AuthenticationV1().SelfSubjectReviews().Create(ctx, selfReview(), metav1.CreateOptions{}); err != nil {
			return err.Error()
		}
		return ""
	})
	return token
}

// bearer is how an agent that has only the token speaks to the hub.
func (h *hub) bearer(token jointoken.Token) *rest.Config {
	return &rest.Config{
		Host: "https://" + h.server.Address(), QPS: -1,
		Transport: transport.NewBearerAuthRoundTripper(token.Bearer(), &http.Transport{TLSClientConfig: token.TLS("127.0.0.1", nil)}),
	}
}

// request posts a signing request and returns a configuration with the
// certificate, or the refusal.
func (h *hub) request(t *testing.T, config *rest.Config, name, signer string, subject pkix.Name, dns []string) (*rest.Config, error) {
	t.Helper()
	key := newKey(t)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject, DNSNames: dns}, key)
	if err != nil {
		t.Fatal(err)
	}
	client := kubernetes.NewForConfigOrDie(config).CertificatesV1().CertificateSigningRequests()
	var got *certificatesv1.CertificateSigningRequest
	create := &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), SignerName: signer,
			Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
		},
	}
	if _, err := client.Create(context.Background(), create, metav1.CreateOptions{}); err != nil {
		return nil, err
	}
	eventually(t, "request "+name+" is answered", func(ctx context.Context) string {
		if got, err = client.Get(ctx, name, getOptions); err != nil {
			return err.Error()
		}
		if len(got.Status.Certificate) == 0 && !denied(got) {
			return fmt.Sprint(got.Status)
		}
		return ""
	})
	if denied(got) {
		return nil, fmt.Errorf("denied: %s", got.Status.Conditions[0].Message)
	}
	return h.withCertificate(t, got.Status.Certificate, key), nil
}

func (h *hub) withCertificate(t *testing.T, certificate []byte, key *ecdsa.PrivateKey) *rest.Config {
	t.Helper()
	return &rest.Config{
		Host: "https://" + h.server.Address(), QPS: -1,
		TLSClientConfig: rest.TLSClientConfig{CAData: h.authority.PEM(), CertData: certificate, KeyData: encodeKey(t, key)},
	}
}

func denied(r *certificatesv1.CertificateSigningRequest) bool {
	return len(r.Status.Conditions) > 0 && r.Status.Conditions[0].Type == certificatesv1.CertificateDenied
}
