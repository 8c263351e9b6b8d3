package identity

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"

	"tripod.dev/tripod/hub/api/jointoken"
)

// Names of the hub's signers in signing requests.
const (
	SignerAgent = "tripod.dev/agent"
	SignerGuard = "tripod.dev/guard"
)

const (
	// LeafValidity is the life of agents' and guards' certificates; renew them
	// when two thirds of it are over.
	LeafValidity = 30 * 24 * time.Hour
	// minLeafValidity is upstream's least spec.expirationSeconds.
	minLeafValidity = 10 * time.Minute
)

// AgentService is the Service of the agents in a member cluster, where guards
// reach them, and agentReplicas its headless twin.
const (
	AgentService  = "tripod-agent.tripod-system.svc"
	agentReplicas = "*.tripod-agent-replicas.tripod-system.svc"
)

// AgentNames are the DNS names that a cluster's agent may have in its
// certificate, and no other.
func AgentNames(cluster string) []string {
	return []string{cluster + ".agents.tripod.dev", AgentService, agentReplicas, "localhost"}
}

// request is a signing request that the policy judges.
type request struct {
	csr    *x509.CertificateRequest
	signer string
	// user and groups are who made it, as the API server authenticated them.
	user   string
	groups []string
	usages []certificatesv1.KeyUsage
}

func parseRequest(object *certificatesv1.CertificateSigningRequest) (request, error) {
	block, _ := pem.Decode(object.Spec.Request)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return request{}, errors.New("spec.request is no PEM block of type CERTIFICATE REQUEST")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return request{}, fmt.Errorf("spec.request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return request{}, fmt.Errorf("spec.request is not signed by its own key: %w", err)
	}
	return request{
		csr: csr, signer: object.Spec.SignerName,
		user: object.Spec.Username, groups: object.Spec.Groups, usages: object.Spec.Usages,
	}, nil
}

// grant is what the policy allows: the certificate to make, and what has to
// hold besides (the token, the cluster).
type grant struct {
	leaf leaf
	peer Peer
	// tokenID is set when the requester presented a join token.
	tokenID string
}

// judge is the policy for signing requests: a pure function of the request. An
// error is shown to the requester.
func (r request) judge() (grant, error) {
	peer, err := parseCommonName(r.csr.Subject.CommonName)
	if err != nil {
		return grant{}, err
	}
	var g grant
	switch r.signer {
	case SignerAgent:
		g, err = r.judgeAgent(peer)
	case SignerGuard:
		g, err = r.judgeGuard(peer)
	default:
		err = fmt.Errorf("signer %q is not the hub's", r.signer)
	}
	if err != nil {
		return grant{}, err
	}
	if err := r.checkShape(peer, g.leaf); err != nil {
		return grant{}, err
	}
	return g, r.checkUsages(g.leaf)
}

func (r request) judgeAgent(peer Peer) (grant, error) {
	if peer.Kind != KindAgent || !isLabel(peer.Cluster) {
		return grant{}, fmt.Errorf("signer %s signs agents only, not %q: ask for CN %q", SignerAgent, r.csr.Subject.CommonName, Agent("CLUSTER"))
	}
	g := grant{peer: peer, leaf: leaf{
		commonName:    peer.CommonName(),
		organisations: KindAgent.organisations(),
		dnsNames:      r.csr.DNSNames,
		usages:        []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}}
	for _, name := range r.csr.DNSNames {
		if !slices.Contains(AgentNames(peer.Cluster), name) {
			return grant{}, fmt.Errorf("DNS name %q is not the agent of %q's: it may have only %q", name, peer.Cluster, AgentNames(peer.Cluster))
		}
	}
	switch {
	case r.user == Agent(peer.Cluster) && slices.Contains(r.groups, OrganisationAgents):
		return g, nil
	case strings.HasPrefix(r.user, jointoken.UserPrefix) && slices.Contains(r.groups, jointoken.Group):
		g.tokenID = strings.TrimPrefix(r.user, jointoken.UserPrefix)
		return g, nil
	default:
		return grant{}, fmt.Errorf("%q may not ask for the certificate of agent %q: only that agent may, or who holds a join token for %q",
			r.user, peer.Cluster, peer.Cluster)
	}
}

func (r request) judgeGuard(peer Peer) (grant, error) {
	if peer.Kind != KindGuard {
		return grant{}, fmt.Errorf("signer %s signs guards only, not %q: ask for CN %q",
			SignerGuard, r.csr.Subject.CommonName, Guard("CLUSTER", "NAMESPACE", "DATASET"))
	}
	if r.user != Agent(peer.Cluster) || !slices.Contains(r.groups, OrganisationAgents) {
		return grant{}, fmt.Errorf("%q may not ask for a certificate of a guard in cluster %q: only that cluster's agent may", r.user, peer.Cluster)
	}
	if len(r.csr.DNSNames) > 0 {
		return grant{}, fmt.Errorf("a guard's certificate has no DNS names, asked for %q", r.csr.DNSNames)
	}
	return grant{peer: peer, leaf: leaf{
		commonName:    peer.CommonName(),
		organisations: KindGuard.organisations(),
		usages:        []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}}, nil
}

// checkShape refuses everything in the request that the certificate will not
// have: silence would let a client believe that it got what it asked for.
func (r request) checkShape(peer Peer, l leaf) error {
	subject := r.csr.Subject
	if !slices.Equal(subject.Organization, l.organisations) {
		return fmt.Errorf("%s %q must have organisation %q and no other, asked for %q", peer.Kind, subject.CommonName, l.organisations, subject.Organization)
	}
	if len(subject.Names) != 1+len(l.organisations) || len(subject.ExtraNames) > 0 {
		return fmt.Errorf("the subject of %q may hold CN and O only, asked for %q", subject.CommonName, subject.String())
	}
	if len(r.csr.IPAddresses)+len(r.csr.EmailAddresses)+len(r.csr.URIs) > 0 {
		return fmt.Errorf("%q may have DNS names only: ask without IP addresses, e-mail addresses and URIs", subject.CommonName)
	}
	return nil
}

// checkUsages wants only usages that the certificate gets.
func (r request) checkUsages(l leaf) error {
	allowed := []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment}
	for _, usage := range l.usages {
		switch usage {
		case x509.ExtKeyUsageClientAuth:
			allowed = append(allowed, certificatesv1.UsageClientAuth)
		case x509.ExtKeyUsageServerAuth:
			allowed = append(allowed, certificatesv1.UsageServerAuth)
		}
	}
	for _, usage := range r.usages {
		if !slices.Contains(allowed, usage) {
			return fmt.Errorf("usage %q is not given to %q: ask for some of %q", usage, l.commonName, allowed)
		}
	}
	if !slices.Contains(r.usages, certificatesv1.UsageClientAuth) {
		return fmt.Errorf("%q needs usage %q: ask for it", l.commonName, certificatesv1.UsageClientAuth)
	}
	return nil
}

// validity is what the requester asked for, within bounds.
func validity(object *certificatesv1.CertificateSigningRequest) time.Duration {
	if object.Spec.ExpirationSeconds == nil {
		return LeafValidity
	}
	wanted := time.Duration(*object.Spec.ExpirationSeconds) * time.Second
	return min(max(wanted, minLeafValidity), LeafValidity)
}
