package guard

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
)

// Names in certificates; the hub's CA signs them.
const (
	guardPrefix  = "tripod:guard:"
	agentPrefix  = "tripod:agent:"
	memberPrefix = "tripod:member:"

	GuardsOrganization  = "tripod:guards"
	agentsOrganization  = "tripod:agents"
	membersOrganization = "tripod:members"
)

// Identity is what a guard's certificate is good for: one dataset's copy in one
// cluster.
type Identity struct {
	Cluster   string
	Namespace string
	Dataset   string
}

// Key is the dataset as NAMESPACE/NAME.
func (i Identity) Key() string { return i.Namespace + "/" + i.Dataset }

// CommonName is the certificate's subject.
func (i Identity) CommonName() string {
	return guardPrefix + i.Cluster + ":" + i.Namespace + ":" + i.Dataset
}

// ParseIdentity reads a guard's certificate.
func ParseIdentity(cert *x509.Certificate) (Identity, error) {
	parts := strings.Split(strings.TrimPrefix(cert.Subject.CommonName, guardPrefix), ":")
	if !strings.HasPrefix(cert.Subject.CommonName, guardPrefix) || len(parts) != 3 ||
		!contains(cert.Subject.Organization, GuardsOrganization) {
		return Identity{}, fmt.Errorf("certificate of %q is not a guard's, expected %sCLUSTER:NAMESPACE:DATASET of %s",
			cert.Subject.CommonName, guardPrefix, GuardsOrganization)
	}
	return Identity{Cluster: parts[0], Namespace: parts[1], Dataset: parts[2]}, nil
}

func contains(list []string, want string) bool {
	for _, s := range list {
		if s == want {
			return true
		}
	}
	return false
}

// Credentials are files, as a Secret is mounted.
type Credentials struct {
	Certificate string
	Key         string
	Authority   string
	// Hubs holds the HOST:PORT of the hub's members, one a line, as the agents
	// knew them last. It may be missing.
	Hubs string
}

// HubsFile is the entry of the Secret that Credentials.Hubs is the file of.
const HubsFile = "hubs"

// hubs are the members to ask while no agent answers.
func (c Credentials) hubs() []string {
	if c.Hubs == "" {
		return nil
	}
	text, err := os.ReadFile(c.Hubs)
	if err != nil {
		return nil // an agent of an earlier version wrote none
	}
	return strings.Fields(string(text))
}

// Load reads the files and the identity in them.
func (c Credentials) Load() (tls.Certificate, *x509.CertPool, Identity, error) {
	pair, err := tls.LoadX509KeyPair(c.Certificate, c.Key)
	if err != nil {
		return pair, nil, Identity{}, fmt.Errorf("read the guard's certificate: %w", err)
	}
	pem, err := os.ReadFile(c.Authority)
	if err != nil {
		return pair, nil, Identity{}, fmt.Errorf("read the hub's authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return pair, nil, Identity{}, fmt.Errorf("%s holds no certificate", c.Authority)
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return pair, nil, Identity{}, fmt.Errorf("read the guard's certificate: %w", err)
	}
	id, err := ParseIdentity(leaf)
	return pair, pool, id, err
}

// clientTLS trusts exactly the agents of the guard's own cluster, or the hub's
// members. Peers are known by the subject the hub's CA signed and not by a
// host name: a guard finds agents by their pods' addresses.
func (c Credentials) clientTLS(hub bool) (*tls.Config, error) {
	pair, pool, id, err := c.Load()
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		Certificates:       []tls.Certificate{pair},
		InsecureSkipVerify: true, // VerifyConnection verifies the chain and the subject
		VerifyConnection: func(state tls.ConnectionState) error {
			return verifyPeer(state, pool, id.Cluster, hub)
		},
	}, nil
}

// VerifyAgent is nil when the peer of a connection is the agent of cluster, by a
// certificate of pool.
func VerifyAgent(state tls.ConnectionState, pool *x509.CertPool, cluster string) error {
	return verifyPeer(state, pool, cluster, false)
}

// AgentOf is the cluster whose agent a certificate names. The chain is the caller's
// to verify.
func AgentOf(cert *x509.Certificate) (string, error) {
	cluster, ok := strings.CutPrefix(cert.Subject.CommonName, agentPrefix)
	if !ok || cluster == "" || !contains(cert.Subject.Organization, agentsOrganization) {
		return "", fmt.Errorf("certificate of %q is not an agent's, expected %sCLUSTER of %s", cert.Subject.CommonName, agentPrefix, agentsOrganization)
	}
	return cluster, nil
}

func verifyPeer(state tls.ConnectionState, pool *x509.CertPool, cluster string, hub bool) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("the peer shows no certificate")
	}
	leaf := state.PeerCertificates[0]
	intermediates := x509.NewCertPool()
	for _, cert := range state.PeerCertificates[1:] {
		intermediates.AddCert(cert)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots: pool, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}); err != nil {
		return fmt.Errorf("the peer is not of this hub: %w", err)
	}
	name, organization := leaf.Subject.CommonName, leaf.Subject.Organization
	if hub && strings.HasPrefix(name, memberPrefix) && contains(organization, membersOrganization) {
		return nil
	}
	if !hub && name == agentPrefix+cluster && contains(organization, agentsOrganization) {
		return nil
	}
	return fmt.Errorf("the peer is %q and not the agent of cluster %s", name, cluster)
}
