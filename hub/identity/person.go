package identity

import (
	"context"
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// SignerPerson signs the client certificates of people and their tools, by the
// name and rules that Kubernetes users know: who may approve requests for this
// signer vouches for the name and the groups.
const SignerPerson = certificatesv1.KubeAPIServerClientSignerName

// personValidity is the longest life of a person's certificate; there is no
// revocation but that of the rights.
const personValidity = adminValidity

// judgePerson is the policy for an approved request of a person: the names of
// the hub's own parts, and the groups that have rights by themselves, are given
// to nobody.
func (r request) judgePerson() (leaf, error) {
	subject := r.csr.Subject
	name := subject.CommonName
	if strings.TrimSpace(name) == "" || reserved(name) {
		return leaf{}, fmt.Errorf("%q is no name of a person: ask for one that does not begin with tripod: or system:", name)
	}
	for _, group := range subject.Organization {
		if reserved(group) {
			return leaf{}, fmt.Errorf("group %q is the hub's own: ask for groups that do not begin with tripod: or system:, and bind roles to them", group)
		}
	}
	if len(subject.Names) != 1+len(subject.Organization) || len(subject.ExtraNames) > 0 {
		return leaf{}, fmt.Errorf("the subject of %q may hold CN and O only, asked for %q", name, subject.String())
	}
	if len(r.csr.DNSNames)+len(r.csr.IPAddresses)+len(r.csr.EmailAddresses)+len(r.csr.URIs) > 0 {
		return leaf{}, fmt.Errorf("the certificate of %q identifies a client: ask without alternative names", name)
	}
	l := leaf{commonName: name, organisations: subject.Organization, usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	return l, r.checkUsages(l)
}

func reserved(name string) bool {
	return strings.HasPrefix(name, "tripod:") || strings.HasPrefix(name, "system:")
}

// isVouched says whether somebody has approved a request of a person.
func isVouched(r *certificatesv1.CertificateSigningRequest) bool {
	if r.Spec.SignerName != SignerPerson {
		return false
	}
	for _, condition := range r.Status.Conditions {
		if condition.Type == certificatesv1.CertificateApproved {
			return true
		}
	}
	return false
}

// signPerson signs what somebody has approved, or fails the request.
func (s *Signer) signPerson(ctx context.Context, object *certificatesv1.CertificateSigningRequest) error {
	parsed, err := parseRequest(object)
	if err != nil {
		return s.deny(ctx, object, err.Error())
	}
	granted, err := parsed.judgePerson()
	if err != nil {
		s.logger.Info("refused a signing request", "request", object.Name, "user", object.Spec.Username, "reason", err.Error())
		return s.deny(ctx, object, err.Error())
	}
	granted.validity = LeafValidity
	if wanted := object.Spec.ExpirationSeconds; wanted != nil {
		granted.validity = min(max(time.Duration(*wanted)*time.Second, minLeafValidity), personValidity)
	}
	der, err := s.authority().issue(granted, parsed.csr.PublicKey, s.now())
	if err != nil {
		return fmt.Errorf("sign: %w", err)
	}
	signed := object.DeepCopy()
	signed.Status.Certificate = encodeCertificate(der)
	if _, err := s.kube.CertificatesV1().CertificateSigningRequests().UpdateStatus(ctx, signed, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("store the certificate: %w", err)
	}
	s.logger.Info("signed a certificate", "request", object.Name, "name", granted.commonName, "groups", granted.organisations)
	return nil
}
