package hub

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub/api/jointoken"
	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/hub/identity"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

// rotateCA asks one member to go on with the rotation.
func (f *fleet) rotateCA(p *process, request *hubv1.RotateAuthorityRequest) *hubv1.RotateAuthorityResponse {
	f.t.Helper()
	var answer *hubv1.RotateAuthorityResponse
	f.eventually("rotate the CA", func(context.Context) error {
		return f.order(p, func(ctx context.Context, admin hubv1.AdminClient) (err error) {
			answer, err = admin.RotateAuthority(ctx, request)
			return err
		})
	})
	return answer
}

// expect fails unless the answer has the stage and waits for what is named, and for
// nothing else.
func (f *fleet) expect(answer *hubv1.RotateAuthorityResponse, stage string, waits ...string) {
	f.t.Helper()
	well := answer.GetStage() == stage && len(answer.GetWaits()) == len(waits)
	for _, want := range waits {
		well = well && slices.ContainsFunc(answer.GetWaits(), func(got string) bool { return strings.Contains(got, want) })
	}
	if !well {
		f.t.Fatalf("the rotation is in stage %q and waits for %q, want %q and %q", answer.GetStage(), answer.GetWaits(), stage, waits)
	}
}

// trusts are the CAs in a member's ca.crt.
func (f *fleet) trusts(p *process) (list []string) {
	f.t.Helper()
	text, err := os.ReadFile(filepath.Join(p.Data, "pki", "ca.crt"))
	if err != nil {
		f.t.Fatal(err)
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		ca, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			f.t.Fatal(err)
		}
		list = append(list, identity.Fingerprint(ca))
	}
	return list
}

// leader is the member that leads.
func (f *fleet) leader(ask *process) *process {
	f.t.Helper()
	var leader *process
	f.eventually("a leader is known", func(context.Context) error {
		return f.order(ask, func(ctx context.Context, admin hubv1.AdminClient) error {
			status, err := admin.Status(ctx, &hubv1.StatusRequest{Local: true})
			for _, p := range f.members {
				if err == nil && p.name == status.GetLeader() {
					leader = p
					return nil
				}
			}
			return errors.Join(err, errors.New("no leader"))
		})
	})
	return leader
}

// fakeAgent is the agent of a cluster, as far as its certificates go.
type fakeAgent struct {
	f       *fleet
	cluster string
	pair    tls.Certificate

	mu       sync.Mutex
	progress *agentv1.AuthorityProgress
	told     *agentv1.HubAuthorities
	stop     func()
}

// joinCluster makes a cluster and lets its agent join.
func (f *fleet) joinCluster(p *process, name string) *fakeAgent {
	f.t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(v1alpha1.AddToScheme(scheme), corev1.AddToScheme(scheme)); err != nil {
		f.t.Fatal(err)
	}
	config := f.api(p)
	api, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		f.t.Fatal(err)
	}
	ca, err := identity.ParseCA(config.CAData)
	if err != nil {
		f.t.Fatal(err)
	}
	token, err := jointoken.New(name, ca)
	if err != nil {
		f.t.Fatal(err)
	}
	f.eventually("make the cluster "+name, func(ctx context.Context) error {
		return client.IgnoreAlreadyExists(api.Create(ctx, &v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.ClusterSpec{
			Region: "r", Center: "c0", Admission: v1alpha1.AdmissionAccepted, Access: v1alpha1.ClusterAccess{Mode: v1alpha1.AccessTunnel}}}))
	})
	if err := api.Create(f.t.Context(), token.NewSecret(time.Now().Add(time.Hour), false)); err != nil {
		f.t.Fatal(err)
	}
	a := &fakeAgent{f: f, cluster: name}
	bearer := rest.AnonymousClientConfig(config)
	bearer.BearerToken = token.Bearer()
	a.request(bearer, "join-"+name)
	return a
}

// request has the hub sign a certificate.
func (a *fakeAgent) request(config *rest.Config, name string) {
	a.f.t.Helper()
	hub, err := kubernetes.NewForConfig(config)
	if err != nil {
		a.f.t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.f.t.Fatal(err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: identity.Agent(a.cluster), Organization: []string{identity.OrganisationAgents}}}, key)
	if err != nil {
		a.f.t.Fatal(err)
	}
	var signed []byte
	a.f.eventually("sign the certificate of "+a.cluster, func(ctx context.Context) error {
		requests := hub.CertificatesV1().CertificateSigningRequests()
		_, err := requests.Create(ctx, &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: certificatesv1.CertificateSigningRequestSpec{
				Request:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request}),
				SignerName: identity.SignerAgent,
				Usages:     []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth, certificatesv1.UsageServerAuth},
			}}, metav1.CreateOptions{})
		if client.IgnoreAlreadyExists(err) != nil {
			return err
		}
		posted, err := requests.Get(ctx, name, metav1.GetOptions{})
		if err == nil && len(posted.Status.Certificate) == 0 {
			err = fmt.Errorf("not signed: %v", posted.Status.Conditions)
		}
		signed = posted.Status.Certificate
		return err
	})
	leaf, err := identity.ParseCA(signed) // reads any certificate
	if err != nil {
		a.f.t.Fatal(err)
	}
	a.pair = tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
}

// dial opens a connection to a member's port 6444 with the agent's certificate.
func (a *fakeAgent) dial(p *process, pair tls.Certificate) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+net.JoinHostPort(p.Address, RPCPort), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true, NextProtos: []string{"h2"}, // what the hub shows is looked at elsewhere
	})))
}

// live holds a session with a member until stop, and heartbeats with what the agent
// says of its progress.
func (a *fakeAgent) live(p *process) {
	a.f.t.Helper()
	ctx, cancel := context.WithCancel(a.f.t.Context())
	conn, err := a.dial(p, a.pair)
	if err != nil {
		a.f.t.Fatal(err)
	}
	var stream agentv1.Sessions_SessionClient
	a.f.eventually("a session with "+p.name, func(context.Context) error {
		if stream, err = agentv1.NewSessionsClient(conn).Session(ctx); err != nil {
			return err
		}
		if err := stream.Send(&agentv1.AgentMessage{Kind: &agentv1.AgentMessage_Hello{Hello: &agentv1.Hello{Replica: "0"}}}); err != nil {
			return err
		}
		_, err = stream.Recv()
		return err
	})
	var living sync.WaitGroup
	living.Go(func() {
		for {
			message, err := stream.Recv()
			if err != nil {
				return
			}
			if told := message.GetAuthorities(); told != nil {
				a.mu.Lock()
				a.told = told
				a.mu.Unlock()
			}
		}
	})
	living.Go(func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for seq := uint64(1); ; seq++ {
			a.mu.Lock()
			beat := &agentv1.Heartbeat{Seq: seq, Replica: "0", Active: true, Observable: true, Authorities: a.progress}
			a.mu.Unlock()
			if stream.Send(&agentv1.AgentMessage{Kind: &agentv1.AgentMessage_Heartbeat{Heartbeat: beat}}) != nil {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
	a.stop = func() { cancel(); _ = conn.Close(); living.Wait() }
}

func (a *fakeAgent) say(progress *agentv1.AuthorityProgress) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.progress = progress
}

// writer writes through the API of one member for as long as it is let, with the
// credentials of the moment when it began.
type writer struct {
	client *kubernetes.Clientset
	count  int
}

func (w *writer) write(t *testing.T, what string) {
	t.Helper()
	var err error
	for range 50 { // of leaders that change, not of certificates
		_, err = w.client.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "w-"}}, metav1.CreateOptions{})
		if err == nil || strings.Contains(err.Error(), "x509") || strings.Contains(err.Error(), "tls") {
			break
		}
	}
	if err != nil {
		t.Fatalf("%s: a write after %d others: %v", what, w.count, err)
	}
	w.count++
}

func (f *fleet) writer(p *process) *writer {
	f.t.Helper()
	config := f.api(p)
	config.Timeout = 20 * time.Second
	made, err := kubernetes.NewForConfig(config)
	if err != nil {
		f.t.Fatal(err)
	}
	return &writer{client: made}
}

// refused says whether a member takes no connection with the certificate, at the ports
// of agents and of the store's API; and that it takes none at the API server.
func (a *fakeAgent) refused(p *process, pair tls.Certificate) error {
	for _, port := range []string{RPCPort, EtcdPort} {
		conn, err := tls.Dial("tcp", net.JoinHostPort(p.Address, port), &tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true, NextProtos: []string{"h2"}})
		if err == nil {
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			_, err = conn.Read(make([]byte, 1)) // TLS 1.3 tells a client only then
			_ = conn.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "certificate") && !strings.Contains(err.Error(), "unknown") {
			return fmt.Errorf("port %s of %s: want a refusal of the certificate, got %w", port, p.name, cmp.Or(err, errors.New("an answer")))
		}
	}
	return nil
}

// TestTheCAIsReplacedWithoutAnOutage goes through all stages with members, the leader
// and an agent away for one each.
func TestTheCAIsReplacedWithoutAnOutage(t *testing.T) {
	if testing.Short() {
		t.Skip("three members start")
	}
	f := startFleet(t)
	a, b, c := f.members[0], f.members[1], f.members[2]
	writes := f.writer(a)
	writes.write(t, "before")
	first := f.trusts(a)
	agent := f.joinCluster(a, "north")
	agent.live(a)
	old := agent.pair
	f.expect(f.rotateCA(b, &hubv1.RotateAuthorityRequest{}), "settled")

	// A member is away while the new CA is made.
	f.api(c)
	c.Stop()
	begun := f.rotateCA(a, &hubv1.RotateAuthorityRequest{Begin: true})
	f.expect(begun, "trust", "hub-c")
	f.start(c)
	f.api(c)
	begun = f.rotateCA(b, &hubv1.RotateAuthorityRequest{Begin: true})
	f.expect(begun, "issue", "its agent 0 is of a version")
	for _, p := range f.members {
		if got := f.trusts(p); !slices.Equal(got, []string{begun.GetPresent(), begun.GetNext()}) || got[0] != first[0] {
			t.Errorf("%s trusts %q, want the old CA and then the new one", p.name, got)
		}
	}
	writes.write(t, "with the credentials of before, while the new CA issues")

	// The agent follows; then it is away. The leader dies.
	f.eventually("the agent is told", func(context.Context) error {
		agent.mu.Lock()
		defer agent.mu.Unlock()
		if agent.told.GetIssuer() != begun.GetNext() {
			return fmt.Errorf("told %v", agent.told.GetIssuer())
		}
		return nil
	})
	agent.say(&agentv1.AuthorityProgress{Generation: agent.told.GetGeneration(), Pending: []string{"the guard of pay/db has a certificate of the old CA"}})
	f.eventually("the guard is named", func(context.Context) error {
		answer := f.rotateCA(c, &hubv1.RotateAuthorityRequest{Finish: true, Without: []string{"tripod:admin"}})
		if waits := answer.GetWaits(); len(waits) != 1 || !strings.Contains(waits[0], "cluster north: the guard of pay/db") {
			return fmt.Errorf("waits for %q", waits)
		}
		return nil
	})
	own := rest.AnonymousClientConfig(f.api(a))
	own.CertData, own.KeyData = agent.pem(t)
	agent.request(own, "renewal-north")
	if ca, err := identity.ParseCA(f.lastCA(a)); err != nil || agent.pair.Leaf.CheckSignatureFrom(ca) != nil {
		t.Errorf("the renewed certificate is not of the new CA: %v", err)
	}
	agent.stop()
	leader := f.leader(b)
	rest := slices.DeleteFunc(slices.Clone(f.members), func(p *process) bool { return p == leader })
	leader.Stop()
	f.eventually("who is away is named", func(context.Context) error {
		answer := f.rotateCA(rest[0], &hubv1.RotateAuthorityRequest{Finish: true, Without: []string{"tripod:admin"}})
		text := strings.Join(answer.GetWaits(), "\n")
		if answer.GetStage() != "issue" || !strings.Contains(text, "member "+leader.name) || !strings.Contains(text, "cluster north: no member hears its agent") {
			return fmt.Errorf("stage %s, waits for %q", answer.GetStage(), answer.GetWaits())
		}
		return nil
	})
	f.start(leader)
	f.api(leader)
	agent.say(&agentv1.AuthorityProgress{Generation: agent.told.GetGeneration()})
	agent.live(c)

	// Who uses an old kubeconfig is named; one that was made since goes on.
	fresh := f.writer(a)
	fresh.write(t, "with credentials of the new CA")
	writes.write(t, "with those of before")
	f.eventually("only the administrator is waited for", func(context.Context) error {
		answer := f.rotateCA(a, &hubv1.RotateAuthorityRequest{Finish: true})
		if waits := answer.GetWaits(); answer.GetStage() != "issue" || len(waits) == 0 || slices.ContainsFunc(waits, func(w string) bool {
			return !strings.HasPrefix(w, "tripod:admin came with a certificate of the old CA")
		}) {
			return fmt.Errorf("stage %s, waits for %q", answer.GetStage(), waits)
		}
		return nil
	})
	f.expect(f.rotateCA(b, &hubv1.RotateAuthorityRequest{Finish: true, Without: []string{"tripod:admin"}}), "settled")

	for _, p := range f.members {
		if got := f.trusts(p); !slices.Equal(got, []string{begun.GetNext()}) {
			t.Errorf("%s trusts %q, want the new CA alone", p.name, got)
		}
		if err := agent.refused(p, old); err != nil {
			t.Error(err)
		}
	}
	fresh.write(t, "after the old CA was dropped")
	if _, err := writes.client.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); err == nil {
		t.Error("an administrator's certificate of the dropped CA is taken")
	}
	agent.stop()
	agent.live(b) // a new connection with the new certificate
	agent.stop()
	for _, p := range f.members { // and all of it from disk
		p.Stop()
	}
	for _, p := range f.members {
		f.start(p)
	}
	for _, p := range f.members {
		f.writer(p).write(t, "after all have started again")
	}
	f.expect(f.rotateCA(c, &hubv1.RotateAuthorityRequest{}), "settled")
}

// lastCA is the last one in a member's ca.crt.
func (f *fleet) lastCA(p *process) []byte {
	f.t.Helper()
	text, err := os.ReadFile(filepath.Join(p.Data, "pki", "ca.crt"))
	if err != nil {
		f.t.Fatal(err)
	}
	return text[bytes.LastIndex(text, []byte("-----BEGIN")):]
}

// pem is the agent's certificate and key.
func (a *fakeAgent) pem(t *testing.T) (cert, key []byte) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(a.pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.pair.Certificate[0]}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}
