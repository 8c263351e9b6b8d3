package apiserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"tripod.dev/tripod/hub/audit"
	"tripod.dev/tripod/hub/identity"
	ca "tripod.dev/tripod/test/authority"
	"tripod.dev/tripod/test/freeport"
)

// authority is the hub's CA, to make certificates that the hub would not.
type authority struct {
	*ca.Authority
	t testing.TB
}

// openAuthority reads the CA that identity has written.
func openAuthority(t testing.TB, i *identity.Identity) *authority {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(filepath.Dir(i.Files().CACertificate), "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{ca.Of(i.Authority().Certificate(), key.(*ecdsa.PrivateKey)), t}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) issue(name string, groups ...string) (cert, key []byte) {
	a.t.Helper()
	pair := a.Issue(a.t, name, groups...)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}), encodeKey(a.t, pair.PrivateKey.(*ecdsa.PrivateKey))
}

func encodeKey(t testing.TB, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
}

// hub is an API server on an etcd of its own.
type hub struct {
	authority *authority
	identity  *identity.Identity
	server    *Server
	dataDir   string
	stop      func()
}

// as is a client configuration with a certificate for that user.
func (h *hub) as(name string, groups ...string) *rest.Config {
	cert, key := h.authority.issue(name, groups...)
	return &rest.Config{
		Host:            "https://" + h.server.Address(),
		TLSClientConfig: rest.TLSClientConfig{CAData: h.authority.PEM(), CertData: cert, KeyData: key},
		QPS:             -1,
	}
}

func (h *hub) admin() *rest.Config { return h.as("tripod:admin", "system:masters") }

func startEtcd(t testing.TB, dir string) string {
	t.Helper()
	config := embed.NewConfig()
	config.Dir = dir
	config.LogLevel = "fatal"
	config.UnsafeNoFsync = true
	addresses := freeport.Addresses(t, 2)
	client, peer := url.URL{Scheme: "http", Host: addresses[0]}, url.URL{Scheme: "http", Host: addresses[1]}
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	etcd, err := embed.StartEtcd(config)
	if err != nil {
		t.Fatal(err)
	}
	// Not Close: it would wait for the connections that upstream keeps open.
	t.Cleanup(etcd.Server.HardStop)
	<-etcd.Server.ReadyNotify()
	return client.String()
}

// newHubConfig writes an identity and returns a configuration without a store.
func newHubConfig(t testing.TB) (*identity.Identity, Config) {
	t.Helper()
	dir := t.TempDir()
	i, err := identity.Open(context.Background(), identity.Config{
		Name: "a", DataDir: dir, Advertise: "127.0.0.1", Bootstrap: true, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	files := i.Files()
	level := slog.LevelError
	if os.Getenv("TRIPOD_TEST_LOG") != "" {
		level = slog.LevelDebug
	}
	return i, Config{
		Member: "a", Listen: "127.0.0.1:0", Advertise: "127.0.0.1", DataDir: dir,
		Identity: Identity{
			CA: files.CACertificate, Certificate: files.MemberCertificate,
			Key: files.MemberKey, ServiceAccountKey: files.ServiceAccountKey,
		},
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})),
	}
}

// startHub runs a server until the test ends and returns when it is ready.
func startHub(t testing.TB, change func(*Config)) *hub {
	t.Helper()
	member, config := newHubConfig(t)
	config.Store.Endpoints = []string{startEtcd(t, filepath.Join(config.DataDir, "etcd"))}
	log, err := audit.Open(audit.Config{
		Path: filepath.Join(config.DataDir, "audit", "audit.log"), Member: "a", Key: member.EvidenceKey(), Logger: config.Logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	config.Audit.Log = log
	if change != nil {
		change(&config)
	}
	begun := time.Now()
	ctx, cancel := context.WithCancel(context.Background())
	server, err := New(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		ended := time.Now()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		t.Logf("stopped after %s", time.Since(ended).Round(time.Millisecond))
	})
	t.Cleanup(stop)
	h := &hub{authority: openAuthority(t, member), identity: member, server: server, dataDir: config.DataDir, stop: stop}
	h.waitReady(t)
	t.Logf("ready after %s", time.Since(begun).Round(time.Millisecond))
	return h
}

func (h *hub) waitReady(t testing.TB) {
	t.Helper()
	<-h.server.Serving()
	client, err := kubernetes.NewForConfig(h.admin())
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the server is ready", func(ctx context.Context) string {
		body, err := client.RESTClient().Get().AbsPath("/readyz").Param("verbose", "").DoRaw(ctx)
		if err != nil {
			return err.Error() + "\n" + failing(string(body))
		}
		return ""
	})
}

func failing(report string) string {
	var lines []string
	for _, line := range strings.Split(report, "\n") {
		if strings.HasPrefix(line, "[-]") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

// eventually waits for check to answer "", at most a minute.
func eventually(t testing.TB, what string, check func(ctx context.Context) string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		last := check(ctx)
		if last == "" {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: still %s", what, last)
		case <-tick.C:
		}
	}
}
