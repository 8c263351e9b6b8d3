package identity

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
)

// Organisations in certificates; the API server sees them as groups.
const (
	OrganisationMembers = "tripod:members"
	OrganisationAgents  = "tripod:agents"
	OrganisationGuards  = "tripod:guards"
	OrganisationAdmins  = "tripod:admins"
	// organisationMasters is Kubernetes' group that RBAC never refuses.
	organisationMasters = "system:masters"
)

// AdminName is the common name of the administrator's certificate.
const AdminName = "tripod:admin"

const (
	memberPrefix = "tripod:member:"
	agentPrefix  = "tripod:agent:"
	guardPrefix  = "tripod:guard:"
)

// Member is the common name of a hub member's certificate.
func Member(name string) string { return memberPrefix + name }

// Agent is the common name of a cluster's agent's certificate.
func Agent(cluster string) string { return agentPrefix + cluster }

// Guard is the common name of the certificate of a dataset's guard in a cluster.
func Guard(cluster, namespace, dataset string) string {
	return guardPrefix + cluster + ":" + namespace + ":" + dataset
}

// Kind says what a peer is.
type Kind string

// Kinds of peers.
const (
	KindMember Kind = "member"
	KindAgent  Kind = "agent"
	KindGuard  Kind = "guard"
	KindAdmin  Kind = "admin"
)

// Peer is who a certificate names.
type Peer struct {
	Kind Kind
	// Name is the member's name, for KindMember.
	Name string
	// Cluster is set for KindAgent and KindGuard.
	Cluster string
	// Namespace and Dataset are set for KindGuard.
	Namespace, Dataset string
}

// CommonName is the name that p has in its certificate.
func (p Peer) CommonName() string {
	switch p.Kind {
	case KindMember:
		return Member(p.Name)
	case KindAgent:
		return Agent(p.Cluster)
	case KindGuard:
		return Guard(p.Cluster, p.Namespace, p.Dataset)
	default:
		return AdminName
	}
}

// organisations are the ones a peer of that kind has, exactly.
func (k Kind) organisations() []string {
	switch k {
	case KindMember:
		return []string{OrganisationMembers}
	case KindAgent:
		return []string{OrganisationAgents}
	case KindGuard:
		return []string{OrganisationGuards}
	default:
		return []string{OrganisationAdmins, organisationMasters}
	}
}

// ParsePeer reads who a certificate names. It does not verify the chain: give
// it only a certificate that TLS has verified against the hub's CA. A name
// without its organisation, or an organisation without its name, is refused.
func ParsePeer(cert *x509.Certificate) (Peer, error) {
	if cert == nil {
		return Peer{}, fmt.Errorf("identity: the peer shows no certificate: it must have one of the hub's CA")
	}
	peer, err := parseCommonName(cert.Subject.CommonName)
	if err != nil {
		return Peer{}, err
	}
	for _, organisation := range peer.Kind.organisations() {
		if !slices.Contains(cert.Subject.Organization, organisation) {
			return Peer{}, fmt.Errorf("identity: certificate %q has organisations %q, wants %q: have it issued again by the hub",
				cert.Subject.CommonName, cert.Subject.Organization, peer.Kind.organisations())
		}
	}
	return peer, nil
}

func parseCommonName(name string) (Peer, error) {
	bad := func() (Peer, error) {
		return Peer{}, fmt.Errorf("identity: common name %q names no member, agent, guard or administrator of a hub", name)
	}
	switch {
	case name == AdminName:
		return Peer{Kind: KindAdmin}, nil
	case strings.HasPrefix(name, memberPrefix):
		member := strings.TrimPrefix(name, memberPrefix)
		if member == "" || strings.Contains(member, ":") {
			return bad()
		}
		return Peer{Kind: KindMember, Name: member}, nil
	case strings.HasPrefix(name, agentPrefix):
		cluster := strings.TrimPrefix(name, agentPrefix)
		if cluster == "" || strings.Contains(cluster, ":") {
			return bad()
		}
		return Peer{Kind: KindAgent, Cluster: cluster}, nil
	case strings.HasPrefix(name, guardPrefix):
		parts := strings.Split(strings.TrimPrefix(name, guardPrefix), ":")
		if len(parts) != 3 || slices.Contains(parts, "") {
			return bad()
		}
		return Peer{Kind: KindGuard, Cluster: parts[0], Namespace: parts[1], Dataset: parts[2]}, nil
	default:
		return bad()
	}
}
