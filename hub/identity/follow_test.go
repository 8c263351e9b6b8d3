package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// house is a hub of three members that follow plans.
type house struct {
	t       *testing.T
	network *network
	configs map[string]Config
	members map[string]*Identity
	peers   []PeerAddress
}

func newHouse(t *testing.T) *house {
	h := &house{t: t, network: newNetwork(t), configs: map[string]Config{}, members: map[string]*Identity{}}
	for _, name := range []string{"a", "b", "c"} {
		h.configs[name] = h.network.config(name)
		h.members[name] = open(t, h.configs[name])
		h.network.serve(name, h.members[name])
		h.peers = append(h.peers, PeerAddress{Name: name, Address: name + ":6444"})
	}
	return h
}

func (h *house) follow(name string, plan Plan) {
	h.t.Helper()
	peers := slices.DeleteFunc(slices.Clone(h.peers), func(p PeerAddress) bool { return p.Name == name })
	if err := h.members[name].Follow(h.t.Context(), plan, peers); err != nil {
		h.t.Fatalf("%s does not follow to stage %s: %v", name, plan.Stage, err)
	}
}

// restart opens a member again from its disk.
func (h *house) restart(name string) {
	h.t.Helper()
	h.members[name] = open(h.t, h.configs[name])
	h.network.serve(name, h.members[name])
}

// talk makes a connection from one member to another, both ways verified as the
// members' own servers do.
func (h *house) talk(from, to string, pair *tls.Certificate) error {
	h.t.Helper()
	server := h.members[to].ServerTLS()
	server.ClientAuth, server.ClientCAs = tls.RequireAndVerifyClientCert, h.members[to].Roots()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		h.t.Fatal(err)
	}
	defer listener.Close()
	served := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			err = conn.(*tls.Conn).Handshake()
			_ = conn.Close()
		}
		served <- err
	}()
	client := h.members[from].PeerTLS()
	if pair != nil {
		client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair, nil }
	}
	conn, err := tls.Dial("tcp", listener.Addr().String(), client)
	if err == nil {
		defer conn.Close()
	}
	return errors.Join(err, <-served)
}

func TestMembersFollowARotationOfTheCA(t *testing.T) {
	h := newHouse(t)
	stale := *h.members["a"].Certificate()
	first := h.members["a"].Plan()
	next, err := h.members["a"].Candidate()
	if err != nil {
		t.Fatal(err)
	}
	plan, err := first.Begin(next)
	if err != nil {
		t.Fatal(err)
	}
	// Each stage reaches one member after the other; all talk with all at any moment.
	for stage := StageTrust; ; stage++ {
		for _, name := range []string{"a", "b", "c"} {
			h.follow(name, plan)
			for from := range h.members {
				for to := range h.members {
					if err := h.talk(from, to, nil); err != nil {
						t.Fatalf("stage %s, when %s had come to it: %s to %s: %v", plan.Stage, name, from, to, err)
					}
				}
			}
		}
		h.restart("b")
		for name, member := range h.members {
			if got := member.Plan(); got.Generation != plan.Generation || got.Stage != plan.Stage || !member.Complete() {
				t.Fatalf("%s is in stage %s of generation %d", name, got.Stage, got.Generation)
			}
			issuer, shown := first.Present, first.Present
			if plan.Stage == StageIssue || plan.Stage == StageServe || plan.Generation == 4 {
				issuer = next
			}
			if plan.Stage == StageServe || plan.Generation == 4 {
				shown = next
			}
			if !member.Issuer().Equal(issuer) || member.Certificate().Leaf.CheckSignatureFrom(shown) != nil {
				t.Errorf("stage %s: %s issues by %s, its certificate is of %s", plan.Stage, name, Fingerprint(member.Issuer()), member.IssuerOf(member.Certificate().Leaf))
			}
		}
		if plan.Stage == StageSettled {
			break
		}
		if err := h.talk("b", "a", &stale); err != nil {
			t.Errorf("a certificate of the old CA in stage %s: %v", plan.Stage, err)
		}
		plan = plan.Advance()
	}
	if err := h.talk("b", "a", &stale); err == nil {
		t.Error("a certificate of the dropped CA is taken")
	}
	for name, config := range h.configs {
		text, err := os.ReadFile(filepath.Join(config.DataDir, "pki", fileAuthorities))
		if err != nil || strings.Contains(string(text), Fingerprint(first.Present)) || len(h.members[name].trust.Load().held) != 1 {
			t.Errorf("%s still holds the old CA: %v", name, err)
		}
	}
	// One that starts now, and knows nothing.
	empty := h.network.config("c")
	if late := open(t, empty); late.Plan().Generation != plan.Generation || !late.Issuer().Equal(next) {
		t.Errorf("a member that joins afterwards has generation %d", late.Plan().Generation)
	}
}

func TestAMemberTrustsBeforeItHasTheKey(t *testing.T) {
	h := newHouse(t)
	next, err := h.members["a"].Candidate()
	if err != nil {
		t.Fatal(err)
	}
	plan, err := h.members["a"].Plan().Begin(next)
	if err != nil {
		t.Fatal(err)
	}
	b := h.members["b"]
	// Nobody has the key yet: it was made on a, which has not followed.
	if err := b.Follow(t.Context(), plan, h.peers[:1]); err == nil {
		t.Error("followed without the key")
	}
	if b.Complete() || b.Holds(next) || len(b.Problems()) != 1 {
		t.Errorf("complete %t, problems %q", b.Complete(), b.Problems())
	}
	leaf, err := parseAuthorityFor(t, h.members["a"].candidate())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: b.Roots(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		t.Errorf("the new CA is not trusted: %v", err)
	}
	h.follow("a", plan)
	h.follow("b", plan)
	if !b.Holds(next) {
		t.Error("the key was not fetched")
	}
	// What is older is passed over.
	if err := b.Follow(t.Context(), Plan{Present: plan.Present}, nil); err != nil || b.Plan().Generation != plan.Generation {
		t.Errorf("went back to generation %d: %v", b.Plan().Generation, err)
	}
	// Nothing was issued by it: it may be replaced.
	other, err := b.Candidate()
	if err != nil {
		t.Fatal(err)
	}
	again, err := plan.Begin(other)
	if err != nil {
		t.Fatal(err)
	}
	h.follow("b", again)
	h.follow("a", again)
	if a := h.members["a"]; a.Holds(next) || !a.Holds(other) {
		t.Error("the replaced candidate is still held, or the other one is not")
	}
	if _, err := again.Advance().Begin(next); err == nil {
		t.Error("a CA that issues was replaced")
	}
}

// parseAuthorityFor is some certificate of the authority.
func parseAuthorityFor(t *testing.T, a *Authority) (*x509.Certificate, error) {
	t.Helper()
	der, err := a.issue(leaf{commonName: "x", validity: time.Hour}, a.key.Public(), time.Now())
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func TestAMemberWithoutTheNewKeyGoesOnWithTheOld(t *testing.T) {
	h := newHouse(t)
	next, err := h.members["a"].Candidate()
	if err != nil {
		t.Fatal(err)
	}
	plan, _ := h.members["a"].Plan().Begin(next)
	for range 3 {
		plan = plan.Advance()
	}
	// A backup of after the rotation, restored with the pki of before it.
	b := h.members["b"]
	if err := b.Follow(context.Background(), plan, nil); err == nil {
		t.Fatal("followed without the key")
	}
	if err := b.renew(); err != nil || b.Certificate().Leaf.CheckSignatureFrom(h.members["c"].Plan().Present) != nil {
		t.Errorf("it cannot even renew its certificate: %v", err)
	}
	if err := h.talk("b", "b", nil); err != nil {
		t.Errorf("it does not reach itself: %v", err)
	}
	if !strings.Contains(strings.Join(b.Problems(), ""), Fingerprint(next)) {
		t.Errorf("problems %q do not name the CA", b.Problems())
	}
	h.restart("b")
}
