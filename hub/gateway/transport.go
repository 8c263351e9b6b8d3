package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// dialError is the failure to reach a cluster, before anything was sent to it.
type dialError struct{ cause error }

func (e *dialError) Error() string { return e.cause.Error() }
func (e *dialError) Unwrap() error { return e.cause }

// cutError is the end of the way to a cluster after the request may have arrived
// there, and before all of the answer came.
type cutError struct{ cause error }

func (e *cutError) Error() string { return e.cause.Error() }
func (e *cutError) Unwrap() error { return e.cause }

// broken tells a way that was never there from one that ended.
func broken(err error) error {
	if unreached := (*dialError)(nil); err == nil || errors.As(err, &unreached) {
		return err
	}
	return &cutError{err}
}

// transports carry requests to clusters. Connections are kept per cluster. One
// that was to be upgraded is never used again, whatever came of the upgrade.
type transports struct {
	config  Config
	tunnel  *http.Transport
	upgrade *http.Transport

	mu     sync.Mutex
	direct map[string]*directTransport
}

// directTransport reaches one cluster in mode Direct, as its Cluster said when
// it was made.
type directTransport struct {
	server   string
	caBundle []byte
	base     *url.URL
	normal   *http.Transport
	upgrade  *http.Transport
}

func newTransports(config Config) *transports {
	t := &transports{config: config, direct: map[string]*directTransport{}}
	t.tunnel = t.base(t.dialTunnel)
	t.upgrade = t.base(t.dialTunnel)
	t.upgrade.DisableKeepAlives = true
	return t
}

func (t *transports) base(dial func(ctx context.Context, network, address string) (net.Conn, error)) *http.Transport {
	return &http.Transport{
		DialContext:           dial,
		DisableCompression:    true, // what the client asked for is passed through
		MaxIdleConnsPerHost:   64,
		IdleConnTimeout:       30 * time.Second,
		ExpectContinueTimeout: time.Second,
	}
}

// dialTunnel takes the cluster's name from the address that RoundTrip made.
func (t *transports) dialTunnel(ctx context.Context, _, address string) (net.Conn, error) {
	cluster, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("read the cluster's name: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, t.config.DialTimeout)
	defer cancel()
	conn, err := t.config.Dialer.Dial(ctx, cluster)
	if err != nil {
		return nil, &dialError{err}
	}
	return conn, nil
}

// RoundTrip implements http.RoundTripper for requests with a passage. The error
// wraps a dialError or a cutError.
func (t *transports) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := t.carry(r)
	return response, broken(err)
}

func (t *transports) carry(r *http.Request) (*http.Response, error) {
	p := passageOf(r.Context())
	if p.cluster.Spec.Access.Mode == v1alpha1.AccessDirect {
		return t.roundTripDirect(r, p)
	}
	r.URL.Scheme, r.URL.Host, r.Host = "http", p.route.cluster, p.route.cluster
	if p.upgrade {
		return t.upgrade.RoundTrip(r)
	}
	return t.tunnel.RoundTrip(r)
}

func (t *transports) roundTripDirect(r *http.Request, p *passage) (*http.Response, error) {
	direct, err := t.directTo(p.cluster)
	if err != nil {
		return nil, &dialError{err}
	}
	r.URL.Scheme, r.URL.Host, r.Host = "https", direct.base.Host, direct.base.Host
	r.URL.Path = direct.base.Path + r.URL.Path
	r.URL.RawPath = direct.base.EscapedPath() + r.URL.RawPath
	if p.upgrade {
		return direct.upgrade.RoundTrip(r)
	}
	return direct.normal.RoundTrip(r)
}

// directTo returns the transport to a cluster in mode Direct, a new one if its
// address or authority has changed.
func (t *transports) directTo(cluster *v1alpha1.Cluster) (*directTransport, error) {
	access := cluster.Spec.Access
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.direct[cluster.Name]
	if old != nil && old.server == access.Server && bytes.Equal(old.caBundle, access.CABundle) {
		return old, nil
	}
	made, err := t.newDirect(access)
	if err != nil {
		return nil, err
	}
	made.server, made.caBundle = access.Server, bytes.Clone(access.CABundle)
	if old != nil {
		old.close()
	}
	t.direct[cluster.Name] = made
	return made, nil
}

func (t *transports) newDirect(access v1alpha1.ClusterAccess) (*directTransport, error) {
	if t.config.ClientCertificate == nil {
		return nil, errors.New("this hub member has no client certificate for mode Direct: use mode Tunnel")
	}
	base, err := url.Parse(access.Server)
	if err != nil || base.Scheme != "https" || base.Host == "" || base.User != nil || base.RawQuery != "" {
		return nil, fmt.Errorf("spec.access.server %q is not https://HOST:PORT", access.Server)
	}
	base.Path, base.RawPath = strings.TrimSuffix(base.Path, "/"), ""
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(access.CABundle) {
		return nil, errors.New("spec.access.caBundle holds no certificate: give the cluster's CA as PEM")
	}
	made := &directTransport{base: base, normal: t.base(t.dialDirect), upgrade: t.base(t.dialDirect)}
	made.upgrade.DisableKeepAlives = true
	made.normal.ForceAttemptHTTP2 = true
	for _, transport := range []*http.Transport{made.normal, made.upgrade} {
		transport.TLSHandshakeTimeout = t.config.DialTimeout
		transport.TLSClientConfig = &tls.Config{
			MinVersion: tls.VersionTLS12,
			RootCAs:    pool,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				return t.config.ClientCertificate()
			},
		}
	}
	return made, nil
}

func (t *transports) dialDirect(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: t.config.DialTimeout, Control: t.config.Reach.control}
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, &dialError{err}
	}
	return conn, nil
}

func (d *directTransport) close() {
	d.normal.CloseIdleConnections()
	d.upgrade.CloseIdleConnections()
}

func (t *transports) close() {
	t.tunnel.CloseIdleConnections()
	t.upgrade.CloseIdleConnections()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, direct := range t.direct {
		direct.close()
	}
}
