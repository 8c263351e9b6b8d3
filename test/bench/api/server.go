package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"tripod.dev/tripod/test/freeport"
	"tripod.dev/tripod/test/multikind/center/pki"
)

// Server is a Kubernetes API and the processes behind it.
type Server struct {
	name string
	// Config reaches it as its administrator.
	Config    *rest.Config
	processes []*exec.Cmd
	ended     chan error
}

// Process is the id of the first of its processes.
func (s *Server) Process() int { return s.processes[0].Process.Pid }

// Name implements report.Bench.
func (s *Server) Name() string { return s.name }

// hubAddress is the member's: its ports are fixed.
const hubAddress = "127.0.0.93"

// HubData is the data directory of the hub below a configuration's folder.
func HubData(folder string) string { return filepath.Join(folder, hubFolder, "data") }

// HubSessions is where agents reach the hub.
const HubSessions = hubAddress + ":6444"

// startLimit bounds how long a server may take to be ready.
const startLimit = 2 * time.Minute

// Folders of the servers.
const (
	hubFolder  = "api-hub"
	peerFolder = "api-peer"
)

// StartHub runs a hub of one member.
func StartHub(ctx context.Context, c Config) (*Server, error) {
	folder := filepath.Join(c.Folder, hubFolder)
	s := &Server{name: "tripod", ended: make(chan error, 1)}
	token := filepath.Join(folder, "token")
	if err := writeFile(token, []byte(strings.Repeat("0123456789abcdef", 4)+"\n")); err != nil {
		return nil, err
	}
	data := filepath.Join(folder, "data")
	text, err := yaml.Marshal(map[string]any{"name": "bench", "dataDir": data, "bootstrap": true, "hubTokenFile": token,
		"directAccess": map[string]any{"allow": []string{"127.0.0.1/32"}}, // the cluster behind the gateway is on this machine
		"members":      []map[string]string{{"name": "bench", "region": "here", "center": "here", "address": hubAddress}}})
	if err != nil {
		return nil, fmt.Errorf("encode the hub's configuration: %w", err)
	}
	file := filepath.Join(folder, "hub.yaml")
	if err := writeFile(file, text); err != nil {
		return nil, err
	}
	if err := s.Run(folder, filepath.Join(c.BinDir, "tripod-hub"), "--config", file, "--log-level", "warn"); err != nil {
		return s, err
	}
	kubeconfig := filepath.Join(data, "admin.kubeconfig")
	err = s.Await(ctx, func(context.Context) error {
		s.Config, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
		return err
	})
	if err != nil {
		return s, err
	}
	return s, s.Await(ctx, s.ready)
}

// StartPeer runs a kube-apiserver with one etcd, and with the policy of the hub that
// runs from the same configuration.
func StartPeer(ctx context.Context, c Config) (*Server, error) {
	folder := filepath.Join(c.Folder, peerFolder)
	s := &Server{name: "kube-apiserver v1.36.3 with etcd 3.6.8", ended: make(chan error, 2)}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("make the peer's folder: %w", err)
	}
	files, err := issue(folder)
	if err != nil {
		return nil, err
	}
	ports, err := freeport.Find(3)
	if err != nil {
		return nil, err
	}
	etcd, peer := "https://"+freeport.Address(ports[0]), "http://"+freeport.Address(ports[1])
	kubernode := filepath.Join(c.BinDir, "kubernode")
	err = s.Run(folder, kubernode, "etcd", "--data-dir", filepath.Join(folder, "etcd"), "--log-level", "warn",
		"--listen-client-urls", etcd, "--advertise-client-urls", etcd, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
		"--initial-cluster", "default="+peer, "--client-cert-auth",
		"--trusted-ca-file", files("ca.crt"), "--cert-file", files("server.crt"), "--key-file", files("server.key"))
	if err != nil {
		return s, err
	}
	clients, err := trusted(folder, files("ca.crt"), c.Trusted)
	if err != nil {
		return s, err
	}
	// The hub's own policy.
	policy := filepath.Join(HubData(c.Folder), "apiserver", "audit", "policy.yaml")
	err = s.Run(folder, kubernode, "kube-apiserver", "--etcd-servers", etcd, "--etcd-cafile", files("ca.crt"),
		"--etcd-certfile", files("admin.crt"), "--etcd-keyfile", files("admin.key"),
		"--bind-address", "127.0.0.1", "--secure-port", strconv.Itoa(ports[2]), "--tls-cert-file", files("server.crt"), "--tls-private-key-file", files("server.key"),
		"--client-ca-file", clients, "--authorization-mode", "RBAC",
		"--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", files("accounts.pub"),
		"--service-account-signing-key-file", files("accounts.key"), "--service-cluster-ip-range", "10.96.0.0/16",
		"--audit-log-path", filepath.Join(folder, "audit.log"), "--audit-policy-file", policy)
	if err != nil {
		return s, err
	}
	s.Config = &rest.Config{Host: "https://" + freeport.Address(ports[2]), TLSClientConfig: rest.TLSClientConfig{
		CAFile: files("ca.crt"), CertFile: files("admin.crt"), KeyFile: files("admin.key")}}
	return s, s.Await(ctx, s.ready)
}

// issue makes the peer's certificates; files names one of them.
func issue(folder string) (files func(string) string, err error) {
	authority, err := pki.OpenAuthority(folder, "ca")
	if err != nil {
		return nil, err
	}
	if _, err := authority.Issue("server", pki.Request{CommonName: "server", Hosts: []string{"127.0.0.1", "localhost"}}); err != nil {
		return nil, err
	}
	if _, err := authority.Issue("admin", pki.Request{CommonName: "admin", Organizations: []string{"system:masters"}}); err != nil {
		return nil, err
	}
	if err := pki.SigningKey(folder, "accounts"); err != nil {
		return nil, err
	}
	return func(name string) string { return filepath.Join(folder, name) }, nil
}

// trusted is a file with the authorities of clients: its own and another.
func trusted(folder, own string, other []byte) (string, error) {
	text, err := os.ReadFile(own)
	if err != nil {
		return "", fmt.Errorf("read the authority: %w", err)
	}
	file := filepath.Join(folder, "clients.crt")
	return file, writeFile(file, append(text, other...))
}

func writeFile(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make the folder of %s: %w", path, err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// Run starts a process, which ends with this one or with Stop.
func (s *Server) Run(folder, program string, arguments ...string) error {
	log, err := os.Create(filepath.Join(folder, arguments[0]+".log"))
	if err != nil {
		return fmt.Errorf("open a log: %w", err)
	}
	defer func() { _ = log.Close() }() // the process has its own
	process := exec.Command(program, arguments...)
	process.Dir, process.Stdout, process.Stderr = folder, log, log
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := process.Start(); err != nil {
		return fmt.Errorf("start %s: %w", program, err)
	}
	s.processes = append(s.processes, process)
	go func() {
		s.ended <- fmt.Errorf("%s ended: %w: see %s", strings.Join(process.Args[:2], " "), process.Wait(), log.Name())
	}()
	return nil
}

// Stop kills the processes.
func (s *Server) Stop() error {
	var failed []error
	for _, p := range s.processes {
		if err := p.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			failed = append(failed, err)
		}
		<-s.ended //nolint:errcheck // it was killed
	}
	return errors.Join(failed...)
}

// Await tries until it works, or a process ends, or the server should long be ready.
func (s *Server) Await(ctx context.Context, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready within %s: %w", s.name, startLimit, err)
		case ended := <-s.ended:
			s.ended <- ended
			return ended
		case <-ticker.C:
		}
	}
}

// ready wants the server's word and the namespace that the objects go to.
func (s *Server) ready(ctx context.Context) error {
	open, closeAll, err := s.connect(1)
	if err != nil {
		return err
	}
	defer closeAll()
	if _, err := open[0].Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx); err != nil {
		return err
	}
	_, err = open[0].CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
	return err
}

// connect opens n connections; client-go would share one among all clients.
func (s *Server) connect(n int) (open []kubernetes.Interface, closeAll func(), err error) {
	var transports []*http.Transport
	closeAll = func() {
		for _, t := range transports {
			t.CloseIdleConnections()
		}
	}
	for range n {
		config := rest.CopyConfig(s.Config)
		config.QPS, config.ContentType, config.AcceptContentTypes = -1, "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf,application/json"
		tls, err := rest.TLSConfigFor(config)
		if err != nil {
			return nil, closeAll, fmt.Errorf("read the credentials of %s: %w", s.name, err)
		}
		transport := &http.Transport{TLSClientConfig: tls, ForceAttemptHTTP2: true}
		transports = append(transports, transport)
		config.TLSClientConfig = rest.TLSClientConfig{}
		c, err := kubernetes.NewForConfigAndClient(config, &http.Client{Transport: transport})
		if err != nil {
			return nil, closeAll, fmt.Errorf("make a client of %s: %w", s.name, err)
		}
		open = append(open, c)
	}
	return open, closeAll, nil
}
