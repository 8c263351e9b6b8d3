package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"

	"tripod.dev/tripod/member-agent/tunnel"
)

// Far is what runs in a process of its own at the far end: agents' tunnels, and what
// they are measured beside.
type Far struct {
	// Hub is where the tunnels go to. Agents are names of clusters; all have the same
	// certificate's key, and a certificate each.
	Hub    string
	Agents []Agent
	// Roots is the authority of the hub and of the listeners here, PEM.
	Roots []byte
	// API is the API server of the agents, with the credentials that they have there.
	// Nil is a server in this process that knows /echo and /flood.
	API *Credentials
	// Direct serves /echo and /flood over TLS on this address; empty does not.
	Direct string
	// Proxy is a bare httputil.ReverseProxy, over TLS on this address, that asks the API
	// server with ProxyAs.
	Proxy   string
	ProxyAs *Credentials
	// Server is the certificate of both.
	Server Pair
}

// Agent is one cluster's.
type Agent struct {
	Cluster string
	Pair    Pair
}

// Pair is a certificate and its key, PEM.
type Pair struct{ Certificate, Key []byte }

// Credentials reach an API server.
type Credentials struct {
	Host  string
	Roots []byte
	Pair  Pair
}

func (c *Credentials) rest() *rest.Config {
	return &rest.Config{Host: c.Host, TLSClientConfig: rest.TLSClientConfig{CAData: c.Roots, CertData: c.Pair.Certificate, KeyData: c.Pair.Key}}
}

// start runs far in a process of self, `bench far`, whose id it returns.
func (f Far) start(self, file string) (id int, stop func(), err error) {
	text, err := json.Marshal(f)
	if err != nil {
		return 0, nil, fmt.Errorf("encode the far end: %w", err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return 0, nil, fmt.Errorf("write the far end's configuration: %w", err)
	}
	process := exec.Command(self, "far", file)
	process.Stdout, process.Stderr = os.Stderr, os.Stderr
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := process.Start(); err != nil {
		return 0, nil, fmt.Errorf("start the far end: %w", err)
	}
	return process.Process.Pid, func() {
		_ = process.Process.Kill()
		_ = process.Wait() // it was killed
	}, nil
}

// RunFar is the process.
func RunFar(ctx context.Context, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read the far end's configuration: %w", err)
	}
	var f Far
	if err := json.Unmarshal(text, &f); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	group, ctx := errgroup.WithContext(ctx)
	api := f.API
	if api == nil {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		api = &Credentials{Host: "http://" + listener.Addr().String()}
		group.Go(func() error { return serve(ctx, listener, backend(), nil) })
	}
	for address, handler := range map[string]http.Handler{f.Direct: backend(), f.Proxy: bare(f.ProxyAs)} {
		if address == "" {
			continue
		}
		listener, err := net.Listen("tcp", address)
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		group.Go(func() error { return serve(ctx, listener, handler, &f) })
	}
	for _, agent := range f.Agents {
		t, err := f.tunnel(agent, api)
		if err != nil {
			return err
		}
		group.Go(func() error { return t.Run(ctx) })
	}
	return group.Wait()
}

func (f *Far) tunnel(agent Agent, api *Credentials) (*tunnel.Tunnel, error) {
	pair, err := tls.X509KeyPair(agent.Pair.Certificate, agent.Pair.Key)
	if err != nil {
		return nil, fmt.Errorf("read the certificate of %s: %w", agent.Cluster, err)
	}
	return tunnel.New(tunnel.Config{
		Members: []string{f.Hub}, Replica: "bench", RESTConfig: api.rest(), Logger: slog.New(slog.DiscardHandler),
		TLS: &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, RootCAs: pool(f.Roots)},
	})
}

func pool(roots []byte) *x509.CertPool {
	p := x509.NewCertPool()
	p.AppendCertsFromPEM(roots)
	return p
}

// serve until ctx ends: over TLS with far's certificate if that is given.
func serve(ctx context.Context, listener net.Listener, handler http.Handler, far *Far) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if far == nil {
		return server.Serve(listener)
	}
	pair, err := tls.X509KeyPair(far.Server.Certificate, far.Server.Key)
	if err != nil {
		return fmt.Errorf("read the server's certificate: %w", err)
	}
	server.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}}
	return server.ServeTLS(listener, "", "")
}

// backend answers /echo with little and /flood with as many bytes as n says.
func backend() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "here\n") })
	mux.HandleFunc("/flood", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.ParseInt(r.URL.Query().Get("n"), 10, 64)
		chunk := make([]byte, 256<<10)
		for ; n > 0; n -= int64(len(chunk)) {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	return mux
}

// bare is the least that a proxy of the API can be: no authentication, no
// authorization, no audit, one identity.
func bare(api *Credentials) http.Handler {
	if api == nil {
		return http.NotFoundHandler()
	}
	target, err := url.Parse(api.Host)
	if err != nil {
		return http.NotFoundHandler()
	}
	transport, err := rest.TransportFor(api.rest())
	if err != nil {
		return http.NotFoundHandler()
	}
	return &httputil.ReverseProxy{Transport: transport, FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
}
