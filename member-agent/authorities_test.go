package memberagent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"

	"tripod.dev/tripod/hub/api/endpoint"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

func fingerprint(ca *x509.Certificate) string {
	sum := sha256.Sum256(ca.Raw)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// told is what a hub says that trusts the CAs and issues by the first.
func told(generation uint64, cas ...*x509.Certificate) *agentv1.HubAuthorities {
	said := &agentv1.HubAuthorities{Generation: generation, Issuer: fingerprint(cas[0])}
	for _, ca := range cas {
		said.Certificates = append(said.Certificates, encodeCertificatePEM(ca.Raw)...)
	}
	return said
}

// leaf is what a member of the hub shows.
func (h *hub) leaf(t *testing.T) *x509.Certificate {
	t.Helper()
	der, err := h.ca.Sign(&x509.Certificate{DNSNames: []string{endpoint.ServerName}}, h.ca.Certificate.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func identitySecret(t *testing.T, local kubernetes.Interface) *corev1.Secret {
	t.Helper()
	secret, err := local.CoreV1().Secrets("tripod-system").Get(t.Context(), IdentitySecret, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// TestTheAgentFollowsTheHubsCA: trusted at once, by both replicas; the certificate
// follows when the guards have had time; what lags is passed over.
func TestTheAgentFollowsTheHubsCA(t *testing.T) {
	before, after := newHub(t), newHub(t)
	local := fake.NewClientset()
	active, passive := before.enrol(local, before.token.String()), before.enrol(local, before.token.String())
	for _, e := range []*enrolment{active, passive} {
		if err := e.join(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	active.credentials.settle = time.Hour
	active.withCertificate = func() (kubernetes.Interface, error) { return after.client, nil }
	refresh := func(e *enrolment, isActive bool) {
		t.Helper()
		if err := e.refresh(within(t), isActive); err != nil {
			t.Fatal(err)
		}
	}
	both := told(2, after.ca.Certificate, before.ca.Certificate)
	for _, e := range []*enrolment{active, passive} {
		if !e.credentials.heed(both) || e.credentials.heed(told(1, before.ca.Certificate)) {
			t.Fatal("an older word was taken, or the newer one not")
		}
	}
	if p := active.credentials.progress(nil); p.GetGeneration() != 0 || len(p.GetPending()) != 1 {
		t.Errorf("progress %v before anything was stored", p)
	}
	refresh(passive, false)
	if len(identitySecret(t, local).Data[entryGeneration]) > 0 {
		t.Error("the passive replica wrote")
	}
	refresh(active, true)
	refresh(active, true)
	refresh(passive, false)
	for name, e := range map[string]*enrolment{"active": active, "passive": passive} {
		if err := e.credentials.verifyHub([]*x509.Certificate{after.leaf(t)}); err != nil {
			t.Errorf("the %s replica does not trust the new CA: %v", name, err)
		}
		if !bytes.Equal(e.credentials.AuthorityPEM(), both.GetCertificates()) || e.credentials.present.Load().generation != 2 {
			t.Errorf("the %s replica has generation %d", name, e.credentials.present.Load().generation)
		}
	}
	if after.count() != 0 {
		t.Fatal("the certificate was renewed before the guards could know the CA")
	}
	if p := active.credentials.progress([]string{"a guard"}); p.GetGeneration() != 2 || len(p.GetPending()) != 2 {
		t.Errorf("progress %v, want the guard's and the agent's", p)
	}
	active.credentials.settle = 0
	refresh(active, true)
	refresh(passive, false)
	for _, e := range []*enrolment{active, passive} {
		leaf := e.credentials.present.Load().certificate.Leaf
		if outdated, due := e.credentials.Outdated(leaf); outdated || due || leaf.CheckSignatureFrom(after.ca.Certificate) != nil {
			t.Error("the certificate is not of the new CA")
		}
		if p := e.credentials.progress(nil); len(p.GetPending()) != 0 {
			t.Errorf("progress %v at the end", p)
		}
	}
	for _, e := range []*enrolment{active, passive} {
		e.credentials.heed(told(4, after.ca.Certificate))
	}
	refresh(active, true)
	if err := active.credentials.verifyHub([]*x509.Certificate{before.leaf(t)}); err == nil {
		t.Error("the dropped CA is still trusted")
	}
}

func TestTheAgentLooksAtOnceWhenTheHubsCAsChange(t *testing.T) {
	h := newHub(t)
	e := h.enrol(fake.NewClientset(), h.token.String())
	e.credentials.heed(told(1, h.ca.Certificate))
	ctx, cancel := context.WithTimeout(t.Context(), lookForNewer/2)
	defer cancel()
	if err := e.untilNewer(ctx); err != nil {
		t.Error(err)
	}
}
