package apiserver

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"tripod.dev/tripod/hub/identity"
)

// testPeople: a person gets a certificate when somebody vouches for them, and
// never one of the hub's own names or groups, whoever vouches.
func testPeople(t *testing.T, h *hub) {
	h.runSigner(t)
	requests := kubernetes.NewForConfigOrDie(h.admin()).CertificatesV1().CertificateSigningRequests()
	for i, test := range []struct {
		name, refusal string
		subject       pkix.Name
	}{
		{"a person with a group", "", pkix.Name{CommonName: "bob", Organization: []string{"operators"}}},
		{"the hub's administrator", "no name of a person", pkix.Name{CommonName: identity.AdminName}},
		{"an agent", "no name of a person", pkix.Name{CommonName: identity.Agent("north-1")}},
		{"a group of the hub's", "the hub's own", pkix.Name{CommonName: "eve", Organization: []string{identity.OrganisationMembers}}},
		{"a group of Kubernetes", "the hub's own", pkix.Name{CommonName: "eve", Organization: []string{"system:nodes"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			key, name := newKey(t), fmt.Sprint("person-", i)
			der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: test.subject}, key)
			if err != nil {
				t.Fatal(err)
			}
			request, err := requests.Create(context.Background(), &certificatesv1.CertificateSigningRequest{
				ObjectMeta: metav1.ObjectMeta{Name: name},
				Spec: certificatesv1.CertificateSigningRequestSpec{
					Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), SignerName: identity.SignerPerson,
					Usages: []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth},
				},
			}, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			request.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{
				Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "Known", Message: "met in person",
			}}
			if _, err := requests.UpdateApproval(context.Background(), name, request, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the request is answered", func(ctx context.Context) string {
				if request, err = requests.Get(ctx, name, getOptions); err != nil {
					return err.Error()
				}
				if len(request.Status.Certificate) == 0 && len(request.Status.Conditions) == 1 {
					return "not yet"
				}
				return ""
			})
			if test.refusal != "" {
				last := request.Status.Conditions[len(request.Status.Conditions)-1]
				if len(request.Status.Certificate) > 0 || last.Type != certificatesv1.CertificateFailed || !strings.Contains(last.Message, test.refusal) {
					t.Fatalf("certificate of %d bytes, %s: %s; want a failure with %q", len(request.Status.Certificate), last.Type, last.Message, test.refusal)
				}
				return
			}
			who := kubernetes.NewForConfigOrDie(h.withCertificate(t, request.Status.Certificate, key))
			review, err := who.AuthenticationV1().SelfSubjectReviews().Create(context.Background(), selfReview(), metav1.CreateOptions{})
			if err != nil || review.Status.UserInfo.Username != "bob" {
				t.Errorf("the hub knows %q: %v", review.Status.UserInfo.Username, err)
			}
		})
	}
}
