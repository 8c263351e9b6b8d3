// Package kubeapi boots one real kube-apiserver with its etcd on loopback, for
// tests whose subject talks to a Kubernetes API. It needs bin/kubernode, or the
// path of that program in TRIPOD_KUBERNODE.
package kubeapi

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"

	"tripod.dev/tripod/test/freeport"
)

// startLimit bounds how long the API server may take to be ready.
const startLimit = 180 * time.Second

// Start boots an API server that lives as long as the test and returns how to
// reach it as an administrator. Nothing else of Kubernetes runs: no controller
// and no node. More are further flags of the API server.
func Start(t testing.TB, more ...string) *rest.Config {
	t.Helper()
	program := Program(t)
	dir := t.TempDir()
	secure := freeport.Addresses(t, 1)[0]
	key := filepath.Join(dir, "accounts.key")
	writeKey(t, key)
	tokens := filepath.Join(dir, "tokens.csv")
	if err := os.WriteFile(tokens, []byte("admin,admin,1,system:masters\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, securePort, _ := net.SplitHostPort(secure)
	Run(t, program, append([]string{"kube-apiserver", "--etcd-servers", Etcd(t), "--bind-address", "127.0.0.1",
		"--secure-port", securePort, "--cert-dir", filepath.Join(dir, "certs"), "--token-auth-file", tokens,
		"--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", key,
		"--service-account-signing-key-file", key, "--authorization-mode", "RBAC",
		"--service-cluster-ip-range", "10.96.0.0/16", "--disable-admission-plugins", "ServiceAccount"}, more...)...)
	config := &rest.Config{
		Host: "https://" + secure, BearerToken: "admin",
		TLSClientConfig: rest.TLSClientConfig{Insecure: true},
		QPS:             200, Burst: 400,
	}
	ready(t, config)
	return config
}

// Etcd boots an etcd that lives as long as the test and returns its URL. It is up
// a moment later: clients wait for it.
func Etcd(t testing.TB) string {
	t.Helper()
	addresses := freeport.Addresses(t, 2)
	url, peer := "http://"+addresses[0], "http://"+addresses[1]
	Run(t, Program(t), "etcd", "--data-dir", t.TempDir(), "--unsafe-no-fsync",
		"--listen-client-urls", url, "--advertise-client-urls", url,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer)
	return url
}

// Program is the path of kubernode, which is all programs of Kubernetes in one.
func Program(t testing.TB) string {
	t.Helper()
	path := os.Getenv("TRIPOD_KUBERNODE")
	if path == "" {
		path = filepath.Join(root(t), "bin/kubernode")
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("no Kubernetes programs: %v: run `make build` or set TRIPOD_KUBERNODE", err)
	}
	return path
}

// root is the repository's folder, above the one that the test runs in. Where its
// source was compiled does not tell: builds leave paths out.
func root(t testing.TB) string {
	t.Helper()
	folder, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; folder != "/"; folder = filepath.Dir(folder) {
		if _, err := os.Stat(filepath.Join(folder, "go.mod")); err == nil {
			return folder
		}
	}
	t.Fatal("the test does not run inside the repository: set TRIPOD_KUBERNODE")
	return ""
}

// Run starts a program that lives as long as the test, which shows the end of its
// log when it fails.
func Run(t testing.TB, program string, args ...string) {
	t.Helper()
	dir := t.TempDir()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", program, err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = log.Close()
		if t.Failed() {
			tail, _ := os.ReadFile(log.Name())
			t.Logf("end of the log of %s %s:\n%s", filepath.Base(program), args[0], tail[max(0, len(tail)-4000):])
		}
	})
}

func writeKey(t testing.TB, path string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

func ready(t testing.TB, config *rest.Config) {
	t.Helper()
	client, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), startLimit)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		body, err := client.RESTClient().Get().AbsPath("/readyz").Do(ctx).Raw()
		if err == nil && string(body) == "ok" {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(fmt.Errorf("the API server was not ready within %s: %w", startLimit, err))
		case <-tick.C:
		}
	}
}
