package gateway

import (
	"cmp"
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

	"tripod.dev/tripod/member-agent/session"
	"tripod.dev/tripod/member-agent/tunnel"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// Far is what runs in a process of its own at the far end: agents' tunnels, and what
// they are measured beside.
type Far struct {
	// Members are where the tunnels go to. Agents are names of clusters; all have the same
	// certificate's key, and a certificate each.
	Members []string
	Agents  []Agent
	// Sessions opens sessions as well.
	Sessions bool
	// Roots is the authority of the hub and of the listeners here, PEM.
	Roots []byte
	// API is the API server of the agents, with the credentials that they have there.
	// Nil is a server in this process that knows /echo and /flood.
	API *Credentials
	// Direct serves /echo and /flood over TLS on this address; empty does not.
	Direct string
	// Proxy is a bare httputil.ReverseProxy, over TLS on this address, that asks the API
	// server with ProxyAs; nil is as the agents ask it.
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
	for address, handler := range map[string]http.Handler{f.Direct: backend(), f.Proxy: bare(cmp.Or(f.ProxyAs, api))} {
		if address == "" {
			continue
		}
		listener, err := net.Listen("tcp", address)
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		group.Go(func() error { return serve(ctx, listener, handler, &f) })
	}
	queue := newQueue()
	for _, agent := range f.Agents {
		if err := f.connect(ctx, group, agent, api, queue); err != nil {
			return err
		}
	}
	return group.Wait()
}

// connect runs an agent's tunnels, and its sessions if they are wanted.
func (f *Far) connect(ctx context.Context, group *errgroup.Group, agent Agent, api *Credentials, queue queue) error {
	pair, err := tls.X509KeyPair(agent.Pair.Certificate, agent.Pair.Key)
	if err != nil {
		return fmt.Errorf("read the certificate of %s: %w", agent.Cluster, err)
	}
	config, log := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, RootCAs: pool(f.Roots)}, slog.New(slog.DiscardHandler)
	tunnels, err := tunnel.New(tunnel.Config{Members: f.Members, Replica: "bench", RESTConfig: api.rest(), Logger: log, TLS: config, Dial: queue.dial})
	if err != nil {
		return err
	}
	group.Go(func() error { return tunnels.Run(ctx) })
	if !f.Sessions {
		return nil
	}
	sessions, err := session.New(session.Config{Members: f.Members, Replica: "bench", Version: "bench", Logger: log, TLS: config, Dial: queue.dial, Receiver: idle{}})
	if err != nil {
		return err
	}
	group.Go(func() error { return sessions.Run(ctx) })
	return nil
}

// idle is an agent with nothing to do.
type idle struct{}

// Grant implements session.Receiver.
func (idle) Grant(*agentv1.Grant, time.Time) {}

// Desired implements session.Receiver.
func (idle) Desired(string, *agentv1.DesiredState) {}

// Carry implements session.Receiver.
func (idle) Carry(context.Context, *agentv1.Directive) *agentv1.DirectiveResult {
	return &agentv1.DirectiveResult{Outcome: agentv1.Outcome_OUTCOME_REFUSED}
}

// Stream implements session.Receiver.
func (idle) Stream(ctx context.Context, _ func(*agentv1.AgentMessage) error) error {
	<-ctx.Done()
	return ctx.Err()
}

// Connected implements session.Receiver.
func (idle) Connected(string) {}

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
