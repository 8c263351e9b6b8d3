package identity

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/tools/clientcmd"
)

func TestMemberCertificateAndKubeconfig(t *testing.T) {
	n := newNetwork(t)
	config := n.config("a")
	config.Advertise, config.SANs = "10.1.2.3", []string{"hub.example.test", "10.1.2.4"}
	i := open(t, config)
	cert := i.Certificate().Leaf
	for _, name := range []string{"a", "localhost", "127.0.0.1", "kubernetes.default.svc", "10.1.2.3", "10.1.2.4", "hub.example.test"} {
		if err := cert.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	peer, err := ParsePeer(cert)
	if diff := cmp.Diff(Peer{Kind: KindMember, Name: "a"}, peer); err != nil || diff != "" {
		t.Errorf("ParsePeer: %v (-want +got):\n%s", err, diff)
	}
	kubeconfig, err := clientcmd.LoadFromFile(i.Files().AdminKubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	servers := map[string]string{}
	for name, context := range kubeconfig.Contexts {
		servers[name] = kubeconfig.Clusters[context.Cluster].Server
	}
	want := map[string]string{"hub": "https://10.1.2.3:6443", "fleet": "https://10.1.2.3:6443/fleet"}
	if diff := cmp.Diff(want, servers); diff != "" {
		t.Errorf("contexts (-want +got):\n%s", diff)
	}
	pair, err := tls.X509KeyPair(kubeconfig.AuthInfos[AdminName].ClientCertificateData, kubeconfig.AuthInfos[AdminName].ClientKeyData)
	if err != nil {
		t.Fatal(err)
	}
	admin, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if peer, err := ParsePeer(admin); err != nil || peer.Kind != KindAdmin {
		t.Errorf("the administrator's certificate is %v (%v)", peer, err)
	}
}

func TestParsePeerRefusesNamesWithoutTheirOrganisation(t *testing.T) {
	for name, cert := range map[string]*x509.Certificate{
		"no certificate":                    nil,
		"a member's name, an agents' group": leafNamed(Member("a"), OrganisationAgents),
		"an agent's name without a group":   leafNamed(Agent("north-1")),
		"an agent of two names":             leafNamed("tripod:agent:a:b", OrganisationAgents),
		"a guard without a dataset":         leafNamed("tripod:guard:a:b", OrganisationGuards),
		"an empty cluster":                  leafNamed(Agent(""), OrganisationAgents),
		"an admin without system:masters":   leafNamed(AdminName, OrganisationAdmins),
		"somebody":                          leafNamed("somebody", OrganisationMembers),
	} {
		if peer, err := ParsePeer(cert); err == nil {
			t.Errorf("%s: parsed as %v", name, peer)
		}
	}
	for _, peer := range []Peer{
		{Kind: KindMember, Name: "a"}, {Kind: KindAgent, Cluster: "north-1"},
		{Kind: KindGuard, Cluster: "north-1", Namespace: "pay", Dataset: "db"}, {Kind: KindAdmin},
	} {
		got, err := ParsePeer(leafNamed(peer.CommonName(), peer.Kind.organisations()...))
		if diff := cmp.Diff(peer, got); err != nil || diff != "" {
			t.Errorf("ParsePeer of %s: %v (-want +got):\n%s", peer.CommonName(), err, diff)
		}
	}
}

func TestConfigIsRefusedWithTheRemedy(t *testing.T) {
	err := Config{Name: "No Label", Peers: []PeerAddress{{"b", "nowhere"}}, Token: []byte("short")}.WithDefaults().Validate()
	for _, want := range []string{"not a DNS label", "no data directory", "no advertise address", "openssl rand -hex 32", "not host:port"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Validate: %v, wants %q", err, want)
		}
	}
}
