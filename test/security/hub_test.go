// Package security attacks a running hub member through all of its ports. Each file
// is named after what it defends against; docs/security.md has the whole list, also
// of what is tested beside the code that defends.
package security

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub"
	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/test/hubprocess"
)

// patience bounds each wait; the machine may be busy.
const patience = 2 * time.Minute

func TestMain(m *testing.M) {
	hubprocess.Be(hub.LoadConfig, hub.New, slog.LevelDebug) // all that it could say is looked at
	code := m.Run()
	if target != nil {
		target.Stop()
		if code == 0 {
			_ = os.RemoveAll(target.dir)
		} else {
			fmt.Fprintln(os.Stderr, "log of the hub:", target.Log)
		}
	}
	os.Exit(code)
}

// running is the hub that is attacked: one member, which leads.
type running struct {
	*hubprocess.Member
	dir   string
	ca    *x509.Certificate
	key   *ecdsa.PrivateKey
	admin *rest.Config
}

var (
	target *running
	once   sync.Once
)

// attacked starts the hub of all tests of this package, with the clusters north-1
// and north-2.
func attacked(t *testing.T) *running {
	t.Helper()
	if testing.Short() {
		t.Skip("a hub member starts")
	}
	once.Do(func() { target = start(t) })
	if target == nil {
		t.Fatal("the hub did not start: see the first test")
	}
	return target
}

func start(t *testing.T) *running {
	t.Helper()
	dir, err := os.MkdirTemp("", "tripod-security-")
	if err != nil {
		t.Fatal(err)
	}
	h := &running{dir: dir}
	if h.Member, err = hubprocess.Alone(dir); err != nil {
		t.Fatal(err)
	}
	if err := h.Start(); err != nil {
		t.Fatal(err)
	}
	target = h // stopped also if what follows fails
	h.ready(t)
	for _, name := range []string{"north-1", "north-2"} {
		h.accept(t, name)
	}
	return h
}

func (h *running) ready(t *testing.T) {
	t.Helper()
	eventually(t, "the hub is ready", func(ctx context.Context) (err error) {
		h.admin, err = h.Ready(ctx)
		return err
	})
	read := func(name string) []byte {
		text, err := os.ReadFile(filepath.Join(h.Data, "pki", name))
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(text)
		return block.Bytes
	}
	var err error
	if h.ca, err = x509.ParseCertificate(read("ca.crt")); err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKCS8PrivateKey(read("ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	h.key = key.(*ecdsa.PrivateKey)
}

// accept makes a cluster that is part of the fleet.
func (h *running) accept(t *testing.T, name string) {
	t.Helper()
	api := h.objects(t)
	cluster := &v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Name: name}}
	cluster.Spec.Region, cluster.Spec.Center, cluster.Spec.Admission = "r", "c", v1alpha1.AdmissionAccepted
	if err := api.Create(t.Context(), cluster); err != nil {
		t.Fatal(err)
	}
}

func (h *running) objects(t *testing.T) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	api, err := client.New(h.admin, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return api
}

func (h *running) kube(t *testing.T, config *rest.Config) *kubernetes.Clientset {
	t.Helper()
	api, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return api
}

// certificate is one that the hub's CA might have issued.
func (h *running) certificate(t *testing.T, name string, groups ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name, Organization: groups},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, h.ca, key.Public(), h.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// agent is what the agent of a cluster has.
func (h *running) agent(t *testing.T, cluster string) tls.Certificate {
	return h.certificate(t, "tripod:agent:"+cluster, "tripod:agents")
}

func (h *running) tls(protocols []string, certificates ...tls.Certificate) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(h.ca)
	return &tls.Config{RootCAs: pool, ServerName: "localhost", Certificates: certificates, NextProtos: protocols, MinVersion: tls.VersionTLS12}
}

// as is a client configuration with that certificate.
func (h *running) as(t *testing.T, certificate tls.Certificate) *rest.Config {
	t.Helper()
	key, err := x509.MarshalECPrivateKey(certificate.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	config := h.anonymous()
	config.CertData = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]})
	config.KeyData = pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: key})
	return config
}

func (h *running) anonymous() *rest.Config {
	return &rest.Config{Host: "https://" + h.at(hub.APIPort), QPS: -1, TLSClientConfig: rest.TLSClientConfig{
		CAData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.ca.Raw}), ServerName: "localhost",
	}}
}

func (h *running) at(port string) string { return net.JoinHostPort(h.Address, port) }

// dial makes a TLS connection.
func (h *running) dial(t *testing.T, port string, config *tls.Config) *tls.Conn {
	t.Helper()
	dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: patience}, Config: config}
	conn, err := dialer.DialContext(t.Context(), "tcp", h.at(port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn.(*tls.Conn)
}

// alive fails if the hub serves nobody any more.
func (h *running) alive(t *testing.T) {
	t.Helper()
	if err := h.kube(t, h.admin).RESTClient().Get().AbsPath("/readyz").Do(t.Context()).Error(); err != nil {
		t.Errorf("after the attack the hub is not ready: %v", err)
	}
}

func eventually(t *testing.T, what string, check func(ctx context.Context) error) {
	t.Helper()
	hubprocess.Eventually(t, patience, what, check)
}
