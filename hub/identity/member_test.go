package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const hubToken = "0123456789abcdef0123456789abcdef"

// network is a set of members' 6444 listeners by address.
type network struct {
	t  *testing.T
	mu sync.Mutex
	at map[string]string // member name -> listening address
}

func newNetwork(t *testing.T) *network { return &network{t: t, at: map[string]string{}} }

func (n *network) dial(_, address string) (net.Conn, error) {
	name, _, _ := strings.Cut(address, ":")
	n.mu.Lock()
	real, ok := n.at[name]
	n.mu.Unlock()
	if !ok {
		return nil, errors.New("connection refused")
	}
	return net.Dial("tcp", real)
}

// config is member name's, in a hub of the three members a, b and c.
func (n *network) config(name string) Config {
	config := Config{
		Name: name, DataDir: n.t.TempDir(), Advertise: "127.0.0.1", Bootstrap: name == "a",
		Token: []byte(hubToken), JoinRetry: time.Millisecond, Dial: n.dial, Logger: slog.New(slog.DiscardHandler),
	}
	for _, peer := range []string{"a", "b", "c"} {
		if peer != name {
			config.Peers = append(config.Peers, PeerAddress{Name: peer, Address: peer + ":6444"})
		}
	}
	return config
}

// serve answers tripod-join/1 as i until the test ends.
func (n *network) serve(name string, i *Identity) {
	n.t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", i.ServerTLS(ProtocolJoin))
	if err != nil {
		n.t.Fatal(err)
	}
	n.put(name, listener.Addr().String())
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { _ = i.ServeJoin(conn.(*tls.Conn)) })
		}
	})
	n.t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
	})
}

func (n *network) put(name, address string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.at[name] = address
}

func open(t *testing.T, config Config) *Identity {
	t.Helper()
	i, err := Open(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestMembersShareOneBundle(t *testing.T) {
	n := newNetwork(t)
	a := open(t, n.config("a"))
	n.serve("a", a)
	b := open(t, n.config("b"))
	if a.Authority().Fingerprint() != b.Authority().Fingerprint() {
		t.Error("b has another CA")
	}
	if !a.ServiceAccountKey().Equal(b.ServiceAccountKey()) || !a.EvidenceKey().Equal(b.EvidenceKey()) {
		t.Error("b has other signing keys")
	}
}

func TestAMemberKeepsItsBundleWithoutPeers(t *testing.T) {
	n := newNetwork(t)
	n.serve("a", open(t, n.config("a")))
	config := n.config("b")
	first := open(t, config)
	n.at = map[string]string{}
	second := open(t, config)
	if first.Authority().Fingerprint() != second.Authority().Fingerprint() {
		t.Error("another CA after a restart")
	}
}

func TestABootstrapMemberThatLostItsDiskTakesTheCAOfItsPeers(t *testing.T) {
	n := newNetwork(t)
	a := open(t, n.config("a"))
	n.serve("a", a)
	n.serve("b", open(t, n.config("b")))
	reborn := open(t, n.config("a"))
	if reborn.Authority().Fingerprint() != a.Authority().Fingerprint() {
		t.Error("the bootstrap member made a second CA although a peer has the first")
	}
	if !a.Founds() || reborn.Founds() {
		t.Errorf("the one that made the CA founds a hub: %v; the one that was given it: %v; want true and false", a.Founds(), reborn.Founds())
	}
}

func TestAHalfWrittenBundleIsFetchedAgain(t *testing.T) {
	n := newNetwork(t)
	n.serve("a", open(t, n.config("a")))
	config := n.config("b")
	directory := filepath.Join(config.DataDir, "pki")
	if err := os.MkdirAll(directory, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(directory, fileCAKey), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, config)
}

func TestABrokenBundleIsSaidAndKept(t *testing.T) {
	n := newNetwork(t)
	config := n.config("a")
	open(t, config)
	path := filepath.Join(config.DataDir, "pki", fileCAKey)
	if err := os.WriteFile(path, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(context.Background(), config)
	if err == nil || !strings.Contains(err.Error(), "restore the directory") {
		t.Errorf("Open: %v, wants the remedy", err)
	}
}

func TestSecretsAreReadableByTheOwnerOnly(t *testing.T) {
	n := newNetwork(t)
	config := n.config("a")
	open(t, config)
	err := filepath.WalkDir(config.DataDir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %s", path, info.Mode().Perm())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestJoiningIsRefused(t *testing.T) {
	n := newNetwork(t)
	n.serve("a", open(t, n.config("a")))
	for name, test := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"with a wrong token":            {func(c *Config) { c.Token = []byte("ffffffffffffffffffffffff") }, "the hub token of member \"b\" is not the one"},
		"under a name nobody expects":   {func(c *Config) { c.Name = "mallory" }, `does not expect a member "mallory": tell it first`},
		"under the name of the server":  {func(c *Config) { c.Name, c.Peers = "a", []PeerAddress{{"b", "a:6444"}} }, "is taken"},
		"when the address is another's": {func(c *Config) { c.Peers = []PeerAddress{{"c", "a:6444"}} }, `it is member "a", not "c"`},
	} {
		t.Run(name, func(t *testing.T) {
			config := n.config("b")
			test.change(&config)
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			_, err := Open(ctx, config)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Open: %v, wants %q", err, test.want)
			}
			if _, err := os.Stat(filepath.Join(config.DataDir, "pki", fileCAKey)); err == nil {
				t.Error("a refused member has the CA's key")
			}
		})
	}
}

// TestASpyInTheMiddleLearnsNothing relays the join protocol between a joiner
// and a member over two TLS connections of its own, as one can who has taken
// over an address: both sides know the token, only the exporters differ.
func TestASpyInTheMiddleLearnsNothing(t *testing.T) {
	n := newNetwork(t)
	a := open(t, n.config("a"))
	n.serve("a", a)
	target := n.at["a"]
	spy, err := newAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{spy.cert.Raw}, PrivateKey: spy.key}}, NextProtos: []string{ProtocolJoin},
	})
	if err != nil {
		t.Fatal(err)
	}
	n.put("a", listener.Addr().String())
	seen := make(chan []byte, 1)
	go func() { seen <- relay(listener, target) }()
	config := n.config("b")
	config.Peers = config.Peers[:1]
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err = Open(ctx, config)
	_ = listener.Close()
	if err == nil || !strings.Contains(err.Error(), "someone sits between") {
		t.Errorf("Open: %v, wants the member to refuse the relayed proof", err)
	}
	if got := string(<-seen); strings.Contains(got, "caKey") || got == "" {
		t.Errorf("the spy saw %q", got)
	}
}

// relay passes one conversation on and returns what the server said last.
func relay(listener net.Listener, target string) (last []byte) {
	client, err := listener.Accept()
	if err != nil {
		return nil
	}
	defer client.Close()
	server, err := tls.Dial("tcp", target, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{ProtocolJoin}})
	if err != nil {
		return nil
	}
	defer server.Close()
	for {
		var message, answer map[string]any
		if readMessage(client, &message) != nil || writeMessage(server, message) != nil || readMessage(server, &answer) != nil {
			return last
		}
		text, _ := answer["refusal"].(string)
		if _, ok := answer["bundle"]; ok {
			text += " caKey"
		}
		last = []byte(text + " answered")
		if writeMessage(client, answer) != nil {
			return last
		}
	}
}

// TestAnImpostorWithoutTheTokenIsNotBelieved: the joiner wants proof as well.
func TestAnImpostorWithoutTheTokenIsNotBelieved(t *testing.T) {
	n := newNetwork(t)
	forged := open(t, newNetwork(t).config("a"))
	listener, err := tls.Listen("tcp", "127.0.0.1:0", forged.ServerTLS(ProtocolJoin))
	if err != nil {
		t.Fatal(err)
	}
	n.put("a", listener.Addr().String())
	done := make(chan error, 1)
	go func() { done <- impersonate(listener, forged) }()
	config := n.config("b")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err = Open(ctx, config)
	_ = listener.Close()
	if err == nil || !strings.Contains(err.Error(), "does not know the hub token") {
		t.Errorf("Open: %v, wants the server's proof to be refused", err)
	}
	if err := <-done; err != nil {
		t.Errorf("the impostor could not even send its bundle: %v", err)
	}
}

// impersonate plays a server that accepts every proof and has none itself but
// the joiner's own, sent back.
func impersonate(listener net.Listener, forged *Identity) error {
	conn, err := listener.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	var hello joinHello
	var proof joinProof
	encoded, err := forged.bundle.encode(forged.trust.Load())
	return errors.Join(err,
		readMessage(conn, &hello),
		writeMessage(conn, joinChallenge{Member: "a", Nonce: hello.Nonce}),
		readMessage(conn, &proof),
		writeMessage(conn, joinResult{Proof: proof.Proof, Bundle: &encoded}))
}

func TestAMemberOfAnotherHubIsTheOneThatStops(t *testing.T) {
	n := newNetwork(t)
	a := open(t, n.config("a"))
	n.serve("a", a)
	b := open(t, n.config("b"))
	n.serve("b", b)
	strange := n.config("c")
	strange.Bootstrap = true
	lonely := newNetwork(t)
	strange.Dial = lonely.dial
	c := open(t, strange)
	c.config.Dial = n.dial
	n.serve("c", c)

	err := c.Run(context.Background())
	if err == nil {
		t.Fatal("c goes on with another hub's CA")
	}
	for _, want := range []string{"member \"c\"", c.Authority().Fingerprint(), a.Authority().Fingerprint(), "a (a:6444)", "b (b:6444)", "move the directory away"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	check := newPeerCheck(a)
	if err := check.round(ctx); err != nil {
		t.Errorf("a, whose CA b has too, stops: %v", err)
	}
	cancel()
}

// handshake returns what each side says to the other's certificate.
func handshake(t *testing.T, server, client *tls.Config) (serverErr, clientErr error) {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	done := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			err = conn.(*tls.Conn).Handshake()
			_ = conn.Close()
		}
		done <- err
	}()
	conn, clientErr := tls.Dial("tcp", listener.Addr().String(), client)
	serverErr = <-done
	if conn != nil {
		_ = conn.Close()
	}
	return serverErr, clientErr
}

func TestTLSSaysWhichCAThePeerHas(t *testing.T) {
	n := newNetwork(t)
	a := open(t, n.config("a"))
	other := open(t, newNetwork(t).config("a"))
	_, err := handshake(t, other.PeerTLS(), a.PeerTLS())
	if err == nil || !strings.Contains(err.Error(), other.Authority().Fingerprint()) || !strings.Contains(err.Error(), "another hub's CA") {
		t.Errorf("handshake: %v, wants both fingerprints", err)
	}
}

// TestAClientShowsItsCertificateAlone: whoever verifies one that comes with its CA
// verifies two signatures, and a kube-apiserver does so for each request.
func TestAClientShowsItsCertificateAlone(t *testing.T) {
	i := open(t, newNetwork(t).config("a"))
	if shown := len(i.ClientCertificate().Certificate); shown != 1 {
		t.Errorf("a client shows %d certificates, want its own", shown)
	}
	server, shown := i.ServerTLS(), 0
	server.VerifyConnection = func(state tls.ConnectionState) error {
		shown = len(state.PeerCertificates)
		return nil
	}
	if fromServer, fromClient := handshake(t, server, i.ClientTLS("localhost")); fromServer != nil || fromClient != nil || shown != 1 {
		t.Errorf("a client showed %d certificates (%v, %v), want its own", shown, fromServer, fromClient)
	}
}

func TestPeerTLSWantsTheKind(t *testing.T) {
	n := newNetwork(t)
	a := open(t, n.config("a"))
	for name, test := range map[string]struct {
		kinds []Kind
		ok    bool
	}{
		"a member where members are wanted": {[]Kind{KindMember}, true},
		"a member where agents are wanted":  {[]Kind{KindAgent, KindGuard}, false},
	} {
		t.Run(name, func(t *testing.T) {
			err, _ := handshake(t, a.PeerTLS(test.kinds...), a.PeerTLS())
			if (err == nil) != test.ok {
				t.Errorf("server: %v", err)
			}
		})
	}
}

func TestCertificatesAreRenewedWhileServing(t *testing.T) {
	n := newNetwork(t)
	var mu sync.Mutex
	now := time.Now()
	config := n.config("a")
	config.Peers, config.Token = nil, nil
	config.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	i := open(t, config)
	before := i.Certificate().Leaf
	renewed := make(chan struct{})
	i.OnRenewal(sync.OnceFunc(func() { close(renewed) }))
	mu.Lock()
	now = before.NotAfter.Add(-before.NotAfter.Sub(before.NotBefore) / 4)
	mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- i.Run(ctx) }()
	select {
	case <-renewed:
	case <-time.After(10 * time.Second):
		t.Error("not renewed with a quarter of its life left")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	after, err := i.ServerTLS().GetCertificate(nil)
	if err != nil || !after.Leaf.NotAfter.After(before.NotAfter) {
		t.Errorf("served certificate ends %s, was %s (%v)", after.Leaf.NotAfter, before.NotAfter, err)
	}
}
