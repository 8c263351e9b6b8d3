package memberagent

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"tripod.dev/tripod/hub/api/jointoken"
	"tripod.dev/tripod/test/authority"
)

// hub plays the hub's signer.
type hub struct {
	t      *testing.T
	ca     *authority.Authority
	client *fake.Clientset
	token  jointoken.Token

	mu       sync.Mutex
	requests map[string]*x509.CertificateRequest
	deny     string
	reject   bool
	life     time.Duration
}

func newHub(t *testing.T) *hub {
	t.Helper()
	var err error
	h := &hub{t: t, ca: authority.New(t, "hub"), requests: map[string]*x509.CertificateRequest{}, life: time.Hour}
	if h.token, err = jointoken.New("north-1", h.ca.Certificate); err != nil {
		t.Fatal(err)
	}
	h.client = fake.NewClientset()
	h.client.PrependReactor("create", "certificatesigningrequests", h.create)
	return h
}

func (h *hub) create(action clienttesting.Action) (bool, runtime.Object, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.reject {
		return true, nil, apierrors.NewUnauthorized("no such token")
	}
	posted := action.(clienttesting.CreateAction).GetObject().(*certificatesv1.CertificateSigningRequest)
	if h.requests[posted.Name] != nil {
		return false, nil, nil // the tracker says that it exists
	}
	block, _ := pem.Decode(posted.Spec.Request)
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return true, nil, err
	}
	h.requests[posted.Name] = request
	if h.deny != "" {
		posted.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateDenied, Message: h.deny}}
		return false, nil, nil
	}
	der, err := h.ca.Sign(&x509.Certificate{
		Subject: request.Subject, DNSNames: request.DNSNames, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(h.life),
	}, request.PublicKey)
	if err != nil {
		return true, nil, err
	}
	posted.Status.Certificate = encodeCertificatePEM(der)
	return false, nil, nil
}

func (h *hub) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.requests)
}

// enrol makes one replica's enrolment in the cluster local.
func (h *hub) enrol(local kubernetes.Interface, token string) *enrolment {
	h.t.Helper()
	file := filepath.Join(h.t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		h.t.Fatal(err)
	}
	return &enrolment{
		cluster: "north-1", namespace: "tripod-system", tokenFile: file, local: local, credentials: newCredentials(0),
		now: time.Now, log: slog.New(slog.DiscardHandler),
		withToken: func(_ jointoken.Token, found func(*x509.Certificate)) (kubernetes.Interface, error) {
			found(h.ca.Certificate)
			return h.client, nil
		},
		withCertificate: func() (kubernetes.Interface, error) { return h.client, nil },
	}
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestTwoReplicasJoinWithOneTokenAndOneRequest(t *testing.T) {
	h := newHub(t)
	local := fake.NewClientset()
	replicas := []*enrolment{h.enrol(local, h.token.String()), h.enrol(local, h.token.String())}
	var joining sync.WaitGroup
	for _, e := range replicas {
		joining.Go(func() {
			if err := e.join(within(t)); err != nil {
				t.Error(err)
			}
		})
	}
	joining.Wait()
	if h.count() != 1 {
		t.Errorf("%d signing requests", h.count())
	}
	first, second := replicas[0].credentials.present.Load(), replicas[1].credentials.present.Load()
	if !first.certificate.Leaf.Equal(second.certificate.Leaf) {
		t.Error("the replicas have different certificates")
	}
	if name := first.certificate.Leaf.Subject.CommonName; name != "tripod:agent:north-1" {
		t.Errorf("the certificate names %q", name)
	}
	if _, err := first.certificate.Leaf.Verify(x509.VerifyOptions{Roots: replicas[0].credentials.Authority(), DNSName: "a.tripod-agent-replicas.tripod-system.svc"}); err != nil {
		t.Error(err)
	}
	// A third life of a replica needs no hub and no token.
	again := h.enrol(local, "")
	if err := again.join(within(t)); err != nil || h.count() != 1 {
		t.Errorf("%v, %d requests", err, h.count())
	}
}

func TestAReplicaThatDiedWhileItJoinedIsFollowedByItsSuccessor(t *testing.T) {
	h := newHub(t)
	local := fake.NewClientset()
	// The first life stores its key and posts the request, and dies before it
	// stores the certificate.
	died := errors.New("power off")
	local.PrependReactor("update", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, died })
	if err := h.enrol(local, h.token.String()).attempt(within(t)); !errors.Is(err, died) {
		t.Fatal(err)
	}
	local.ReactionChain = local.ReactionChain[1:]
	if err := h.enrol(local, h.token.String()).attempt(within(t)); err != nil {
		t.Fatal(err)
	}
	if h.count() != 1 {
		t.Errorf("%d signing requests for one token", h.count())
	}
}

func TestJoiningSaysWhatIsWrong(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*hub)
		token  func(*hub) string
		want   string
	}{
		"a used token":               {func(h *hub) { h.deny = "the join token for cluster \"north-1\" was used already" }, nil, "used already"},
		"a token the hub forgot":     {func(h *hub) { h.reject = true }, nil, "tripodctl join-token north-1"},
		"a token of another cluster": {nil, func(h *hub) string { t := h.token; t.Cluster = "north-2"; return t.String() }, `is for cluster "north-2"`},
		"half a token":               {nil, func(h *hub) string { return "north-1.abc" }, "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHub(t)
			if tc.change != nil {
				tc.change(h)
			}
			token := h.token.String()
			if tc.token != nil {
				token = tc.token(h)
			}
			err := h.enrol(fake.NewClientset(), token).attempt(within(t))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
}

func TestARefusedTokenIsFollowedByANewOne(t *testing.T) {
	h := newHub(t)
	local := fake.NewClientset()
	h.deny = "expired"
	if err := h.enrol(local, h.token.String()).attempt(within(t)); !errors.Is(err, errDenied) {
		t.Fatal(err)
	}
	h.deny = ""
	next, err := jointoken.New("north-1", h.ca.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.enrol(local, next.String()).attempt(within(t)); err != nil {
		t.Error(err)
	}
}

func TestTheActiveReplicaRenewsAndTheOtherFollows(t *testing.T) {
	h := newHub(t)
	local := fake.NewClientset()
	active, passive := h.enrol(local, h.token.String()), h.enrol(local, h.token.String())
	for _, e := range []*enrolment{active, passive} {
		if err := e.attempt(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	before := active.credentials.present.Load().certificate.Leaf
	if err := active.refresh(within(t), true); err != nil || h.count() != 1 {
		t.Fatalf("renewed too early: %v, %d requests", err, h.count())
	}
	dialling := active.credentials.clientTLS() // of a session that was opened before
	later := func() time.Time { return time.Now().Add(h.life * 3 / 4) }
	active.now, passive.now = later, later
	if err := passive.refresh(within(t), false); err != nil || h.count() != 1 {
		t.Fatalf("the passive replica renewed: %v, %d requests", err, h.count())
	}
	if err := active.refresh(within(t), true); err != nil {
		t.Fatal(err)
	}
	after := active.credentials.present.Load().certificate.Leaf
	if after.Equal(before) || after.PublicKey.(*ecdsa.PublicKey).Equal(before.PublicKey) {
		t.Error("the renewed certificate has the old key")
	}
	if shown, err := dialling.GetClientCertificate(nil); err != nil || !shown.Leaf.Equal(after) {
		t.Errorf("new connections are made with another certificate than the present one: %v", err)
	}
	if shown, err := active.credentials.ServingCertificate(); err != nil || !shown.Leaf.Equal(after) {
		t.Errorf("guards are shown another certificate than the present one: %v", err)
	}
	if err := passive.refresh(within(t), false); err != nil || !passive.credentials.present.Load().certificate.Leaf.Equal(after) {
		t.Errorf("the passive replica does not follow: %v", err)
	}
	secret, err := local.CoreV1().Secrets("tripod-system").Get(t.Context(), IdentitySecret, metav1.GetOptions{})
	if err != nil || len(secret.Data[entryNextKey]) != 0 {
		t.Errorf("the next key is still there: %v", err)
	}
}

// TestAnAgentThatWasAwayForTooLongJoinsAgain: a cluster that could not reach the hub
// until its certificate ended needs a token, and no restart.
func TestAnAgentThatWasAwayForTooLongJoinsAgain(t *testing.T) {
	h := newHub(t)
	e := h.enrol(fake.NewClientset(), h.token.String())
	if err := e.attempt(within(t)); err != nil {
		t.Fatal(err)
	}
	before := e.credentials.present.Load().certificate.Leaf
	e.now = func() time.Time { return before.NotAfter.Add(time.Minute) }
	h.reject = true // the token that was used
	if err := e.refresh(within(t), true); err == nil || !strings.Contains(err.Error(), "tripodctl join-token") {
		t.Errorf("without a new token: %v", err)
	}
	h.reject, h.life = false, 4*time.Hour
	token, err := jointoken.New("north-1", h.ca.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(e.tokenFile, []byte(token.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := e.refresh(within(t), true); err != nil {
		t.Fatal(err)
	}
	if after := e.credentials.present.Load().certificate.Leaf; !after.NotAfter.After(before.NotAfter) {
		t.Errorf("the certificate ends %s, as before", after.NotAfter)
	}
}

func TestMemoryOnlyGrows(t *testing.T) {
	local := fake.NewClientset()
	m := newMemory(local, "tripod-system", slog.New(slog.DiscardHandler))
	if incarnation, revision, err := m.load(t.Context()); err != nil || incarnation != 0 || revision != 0 {
		t.Fatalf("got %d, %d, %v", incarnation, revision, err)
	}
	m.seen = func() (uint64, int64) { return 2, 40 }
	if err := m.write(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The other replica has seen more, or less.
	other := newMemory(local, "tripod-system", slog.New(slog.DiscardHandler))
	for _, revision := range []int64{50, 45} {
		other.seen = func() (uint64, int64) { return 2, revision }
		if err := other.write(t.Context()); err != nil {
			t.Fatal(err)
		}
		if incarnation, revision, err := m.load(t.Context()); err != nil || incarnation != 2 || revision != 50 {
			t.Errorf("got %d, %d, %v", incarnation, revision, err)
		}
	}
	// What cannot be read is not taken for nothing.
	stored, _ := local.CoreV1().ConfigMaps("tripod-system").Get(t.Context(), MemoryConfigMap, metav1.GetOptions{})
	stored.Data[entryIncarnation] = "two"
	if _, err := local.CoreV1().ConfigMaps("tripod-system").Update(t.Context(), stored, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := m.load(t.Context()); err == nil || !strings.Contains(err.Error(), "restore it") {
		t.Errorf("got %v", err)
	}
}
