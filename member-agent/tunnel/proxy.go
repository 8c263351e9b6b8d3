package tunnel

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/streaming/pkg/httpstream"
)

// proxy forwards to the API server and changes nothing but the credentials: it
// replaces Authorization by the agent's own.
type proxy struct {
	// brief copies bodies through large buffers, for few system calls and frames; lasting,
	// of which there are many that wait, through smaller ones.
	brief, lasting *httputil.ReverseProxy
	plain          http.RoundTripper // HTTP/2, many requests on one connection
	upgrade        http.RoundTripper // HTTP/1.1, because SPDY and WebSocket take over a connection
	target         *url.URL
	log            *slog.Logger
}

func newProxy(config *rest.Config, log *slog.Logger) (*proxy, error) {
	target, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, fmt.Errorf("tunnel: address of the cluster's API server: %w", err)
	}
	plain, err := rest.TransportFor(config)
	if err != nil {
		return nil, fmt.Errorf("tunnel: transport to the cluster's API server: %w", err)
	}
	one := rest.CopyConfig(config)
	one.NextProtos = []string{"http/1.1"}
	upgrade, err := rest.TransportFor(one)
	if err != nil {
		return nil, fmt.Errorf("tunnel: transport to the cluster's API server: %w", err)
	}
	p := &proxy{plain: plain, upgrade: upgrade, target: target, log: log}
	p.brief, p.lasting = p.through(briefBytes), p.through(lastingBytes)
	return p, nil
}

// through copies bodies through buffers of that many bytes.
func (p *proxy) through(bytes int) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite:       p.rewrite,
		Transport:     p,
		FlushInterval: -1, // a watch event is sent when it comes
		BufferPool:    &buffers{bytes: bytes},
		ErrorHandler:  p.unreachable,
		ErrorLog:      errorLog(p.log),
	}
}

// ServeHTTP implements http.Handler.
func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if lasts(r.URL) {
		p.lasting.ServeHTTP(w, r)
		return
	}
	p.brief.ServeHTTP(w, r)
}

// lasts is a guess of what waits for what comes: a wrong one costs memory or time.
func lasts(u *url.URL) bool {
	return strings.Contains(u.RawQuery, "watch=") || strings.Contains(u.RawQuery, "follow=") || strings.Contains(u.Path, "/watch/")
}

// RoundTrip implements http.RoundTripper.
func (p *proxy) RoundTrip(r *http.Request) (*http.Response, error) {
	if httpstream.IsUpgradeRequest(r) {
		return p.upgrade.RoundTrip(r)
	}
	return p.plain.RoundTrip(r)
}

func (p *proxy) rewrite(r *httputil.ProxyRequest) {
	r.Out.URL.Scheme, r.Out.URL.Host = p.target.Scheme, p.target.Host
	r.Out.Host = p.target.Host
	r.Out.URL.RawQuery = r.In.URL.RawQuery
	r.Out.Header.Del("Authorization")
	// ReverseProxy drops these; the API server's audit log wants them.
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if values := r.In.Header.Values(name); len(values) > 0 {
			r.Out.Header[name] = values
		}
	}
}

// unreachable answers as a Kubernetes client expects.
func (p *proxy) unreachable(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return // the client left
	}
	p.log.Warn("request through the tunnel failed", "error", err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusBadGateway)
	_ = json.NewEncoder(w).Encode(metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure,
		Code: http.StatusBadGateway, Reason: metav1.StatusReasonServiceUnavailable,
		Message: fmt.Sprintf("the cluster's agent is connected but cannot reach the cluster's API server: %v", err),
	})
}

// closeIdle lets go of the connections to the API server.
func (p *proxy) closeIdle() {
	for _, t := range []http.RoundTripper{p.plain, p.upgrade} {
		closeIdleConnections(t)
	}
}

func closeIdleConnections(t http.RoundTripper) {
	for t != nil {
		if c, ok := t.(interface{ CloseIdleConnections() }); ok {
			c.CloseIdleConnections()
			return
		}
		w, ok := t.(interface{ WrappedRoundTripper() http.RoundTripper })
		if !ok {
			return
		}
		t = w.WrappedRoundTripper()
	}
}

const (
	briefBytes   = 64 << 10
	lastingBytes = 32 << 10
)

// buffers are what bodies are copied through; ReverseProxy makes one for each request.
type buffers struct {
	bytes int
	free  sync.Pool // *[]byte
}

// Get implements httputil.BufferPool.
func (b *buffers) Get() []byte {
	if free, ok := b.free.Get().(*[]byte); ok {
		return *free
	}
	return make([]byte, b.bytes)
}

// Put implements httputil.BufferPool.
func (b *buffers) Put(buffer []byte) { b.free.Put(&buffer) }

func errorLog(l *slog.Logger) *log.Logger { return slog.NewLogLogger(l.Handler(), slog.LevelDebug) }

// tunnelTLS asks for the tunnel protocol and nothing else.
func tunnelTLS(base *tls.Config, host string) *tls.Config {
	config := base.Clone()
	config.NextProtos = []string{Protocol}
	// Small records at the beginning are for browsers; here they are more work.
	config.DynamicRecordSizingDisabled = true
	if config.ServerName == "" {
		config.ServerName = host
	}
	return config
}
