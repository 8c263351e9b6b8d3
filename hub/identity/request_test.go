package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"net/url"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"

	"tripod.dev/tripod/hub/api/jointoken"
)

func leafNamed(name string, organisations ...string) *x509.Certificate {
	return &x509.Certificate{Subject: pkix.Name{CommonName: name, Organization: organisations}}
}

func newRequest(t *testing.T, template *x509.CertificateRequest) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// asker is who asks, as the API server authenticated them.
type asker struct {
	user   string
	groups []string
}

var (
	northAgent = asker{Agent("north-1"), []string{OrganisationAgents, "system:authenticated"}}
	joiner     = asker{jointoken.UserPrefix + "abc123", []string{"system:bootstrappers", jointoken.Group}}
	person     = asker{"eve", []string{"system:masters"}}
)

func subject(name string, organisations ...string) *x509.CertificateRequest {
	return &x509.CertificateRequest{Subject: pkix.Name{CommonName: name, Organization: organisations}}
}

func TestSigningPolicy(t *testing.T) {
	agent := func(change func(*x509.CertificateRequest)) *x509.CertificateRequest {
		template := subject(Agent("north-1"), OrganisationAgents)
		if change != nil {
			change(template)
		}
		return template
	}
	both := []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth, certificatesv1.UsageServerAuth}
	guardOf := subject(Guard("north-1", "pay", "db"), OrganisationGuards)
	client := both[:2]
	for name, test := range map[string]struct {
		who      asker
		signer   string
		template *x509.CertificateRequest
		usages   []certificatesv1.KeyUsage
		refusal  string // empty: granted
	}{
		"an agent renews":                            {northAgent, SignerAgent, agent(nil), both, ""},
		"an agent renews with all its names":         {northAgent, SignerAgent, agent(func(r *x509.CertificateRequest) { r.DNSNames = AgentNames("north-1") }), both, ""},
		"a cluster joins":                            {joiner, SignerAgent, agent(nil), both, ""},
		"an agent asks for its guard":                {northAgent, SignerGuard, guardOf, client, ""},
		"an agent asks for another cluster's name":   {northAgent, SignerAgent, subject(Agent("north-2"), OrganisationAgents), both, "only that agent may"},
		"an agent asks for a member's name":          {northAgent, SignerAgent, subject(Member("hub-a"), OrganisationAgents), both, "signs agents only"},
		"an agent asks to be administrator":          {northAgent, SignerAgent, subject(AdminName, OrganisationAdmins, "system:masters"), both, "signs agents only"},
		"an agent adds system:masters":               {northAgent, SignerAgent, subject(Agent("north-1"), OrganisationAgents, "system:masters"), both, "and no other"},
		"an agent adds the members' organisation":    {northAgent, SignerAgent, subject(Agent("north-1"), OrganisationAgents, OrganisationMembers), both, "and no other"},
		"an agent without its organisation":          {northAgent, SignerAgent, subject(Agent("north-1")), both, "must have organisation"},
		"an agent adds an organisational unit":       {northAgent, SignerAgent, agent(func(r *x509.CertificateRequest) { r.Subject.OrganizationalUnit = []string{"x"} }), both, "CN and O only"},
		"an agent asks for the hub's DNS name":       {northAgent, SignerAgent, agent(func(r *x509.CertificateRequest) { r.DNSNames = []string{"kubernetes.default.svc"} }), both, "may have only"},
		"an agent asks for another cluster's DNS":    {northAgent, SignerAgent, agent(func(r *x509.CertificateRequest) { r.DNSNames = []string{"north-2.agents.tripod.dev"} }), both, "may have only"},
		"an agent asks for any replica of the world": {northAgent, SignerAgent, agent(func(r *x509.CertificateRequest) { r.DNSNames = []string{"*"} }), both, "may have only"},
		"an agent asks for an IP address":            {northAgent, SignerAgent, agent(func(r *x509.CertificateRequest) { r.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 1)} }), both, "DNS names only"},
		"an agent asks for a URI":                    {northAgent, SignerAgent, agent(func(r *x509.CertificateRequest) { r.URIs = []*url.URL{{Scheme: "spiffe", Host: "x"}} }), both, "DNS names only"},
		"an agent asks for an e-mail address":        {northAgent, SignerAgent, agent(func(r *x509.CertificateRequest) { r.EmailAddresses = []string{"a@example.test"} }), both, "DNS names only"},
		"an agent asks to sign code":                 {northAgent, SignerAgent, agent(nil), append(both[:3:3], certificatesv1.UsageCodeSigning), "is not given"},
		"an agent asks to sign certificates":         {northAgent, SignerAgent, agent(nil), append(both[:3:3], certificatesv1.UsageCertSign), "is not given"},
		"an agent forgets to ask for client use":     {northAgent, SignerAgent, agent(nil), both[:1], "needs usage"},
		"a person asks for an agent":                 {person, SignerAgent, agent(nil), both, "only that agent may"},
		"a user named like the agent, without group": {asker{Agent("north-1"), []string{"system:authenticated"}}, SignerAgent, agent(nil), both, "only that agent may"},
		"a bootstrap token that is no join token":    {asker{joiner.user, []string{"system:bootstrappers"}}, SignerAgent, agent(nil), both, "only that agent may"},
		"a joiner asks for a guard":                  {joiner, SignerGuard, guardOf, client, "only that cluster's agent may"},
		"an agent asks for another cluster's guard":  {northAgent, SignerGuard, subject(Guard("north-2", "pay", "db"), OrganisationGuards), client, "only that cluster's agent may"},
		"a guard asks to serve":                      {northAgent, SignerGuard, guardOf, both, "is not given"},
		"a guard with a DNS name":                    {northAgent, SignerGuard, &x509.CertificateRequest{Subject: guardOf.Subject, DNSNames: []string{"localhost"}}, client, "no DNS names"},
		"an agent's name at the guards' signer":      {northAgent, SignerGuard, agent(nil), client, "signs guards only"},
		"a guard's name at the agents' signer":       {northAgent, SignerAgent, guardOf, client, "signs agents only"},
		"a cluster name that is no DNS label":        {asker{Agent("North 1"), northAgent.groups}, SignerAgent, subject(Agent("North 1"), OrganisationAgents), both, "signs agents only"},
		"a signer of somebody else":                  {northAgent, "kubernetes.io/kube-apiserver-client", agent(nil), both, "is not the hub's"},
	} {
		t.Run(name, func(t *testing.T) {
			parsed, err := parseRequest(&certificatesv1.CertificateSigningRequest{Spec: certificatesv1.CertificateSigningRequestSpec{
				Request: newRequest(t, test.template), SignerName: test.signer, Username: test.who.user, Groups: test.who.groups, Usages: test.usages,
			}})
			if err != nil {
				t.Fatal(err)
			}
			granted, err := parsed.judge()
			if test.refusal == "" {
				if err != nil {
					t.Fatalf("refused: %v", err)
				}
				if granted.leaf.commonName != test.template.Subject.CommonName {
					t.Errorf("granted to %q", granted.leaf.commonName)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.refusal) {
				t.Errorf("judge: %v, wants a refusal with %q", err, test.refusal)
			}
		})
	}
}

func TestARequestMustBeSignedByItsKey(t *testing.T) {
	data := newRequest(t, subject(Agent("north-1"), OrganisationAgents))
	block, _ := pem.Decode(data)
	block.Bytes[len(block.Bytes)-1] ^= 1
	_, err := parseRequest(&certificatesv1.CertificateSigningRequest{Spec: certificatesv1.CertificateSigningRequestSpec{Request: pem.EncodeToMemory(block)}})
	if err == nil {
		t.Error("a request with a broken signature was parsed")
	}
}
