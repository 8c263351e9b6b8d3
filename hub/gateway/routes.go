package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// Dialer opens streams to clusters. A stream speaks HTTP/1.1 to the agent's
// proxy of its API server, which adds its own credentials.
type Dialer interface {
	Dial(ctx context.Context, cluster string) (net.Conn, error)
}

// Clusters knows the Cluster objects.
type Clusters interface {
	Cluster(name string) (*v1alpha1.Cluster, bool)
}

// Config of Routes.
type Config struct {
	Dialer   Dialer
	Clusters Clusters
	// Applications knows where applications are. Without it their route is refused.
	Applications Applications
	// Again judges the request of a context again. Without it open streams are not
	// judged again.
	Again func(ctx context.Context) Judge
	// Fleet serves the view, with the /fleet prefix taken off.
	Fleet http.Handler
	// ClientCertificate is the hub's, for clusters in mode Direct. Without it
	// such clusters cannot be reached.
	ClientCertificate func() (*tls.Certificate, error)
	// Reach limits the addresses of clusters in mode Direct.
	Reach Reach
	// DialTimeout bounds how long a request waits for a connection; 5 s.
	DialTimeout time.Duration
	// Registerer takes metrics. Optional.
	Registerer prometheus.Registerer
	Logger     *slog.Logger
}

// Validate reports what is missing.
func (c Config) Validate() error {
	if c.Dialer == nil || c.Clusters == nil || c.Fleet == nil {
		return errors.New("gateway: Dialer, Clusters and Fleet are needed")
	}
	return nil
}

// Routes routes requests. Run it while it serves; close it to end idle connections.
type Routes struct {
	config     Config
	transports *transports
	proxy      *httputil.ReverseProxy
	inner      request.RequestInfoResolver
	streams    *streams
	outages    *outages
	overseer   *overseen
	shares     *shares
}

// New makes Routes.
func New(config Config) (*Routes, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if config.DialTimeout == 0 {
		config.DialTimeout = 5 * time.Second
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	metrics := newPassMetrics()
	if config.Registerer != nil {
		if err := metrics.register(config.Registerer); err != nil {
			return nil, fmt.Errorf("gateway: register metrics: %w", err)
		}
	}
	routes := &Routes{
		config:     config,
		transports: newTransports(config),
		streams:    newStreams(),
		outages:    newOutages(),
		shares:     newShares(passedAtOnce, metrics),
		overseer:   &overseen{open: map[*overseenStream]struct{}{}},
		inner: &request.RequestInfoFactory{
			APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api"),
		},
	}
	routes.proxy = newProxy(routes.transports, config.Logger)
	return routes, nil
}

// Close ends the idle connections to clusters.
func (g *Routes) Close() { g.transports.close() }

// RequestInfo wraps the API server's resolver; see Resolver.
func (g *Routes) RequestInfo(next request.RequestInfoResolver) request.RequestInfoResolver {
	return Resolver(next)
}

// LongRunning wraps the API server's check; see LongRunning.
func (g *Routes) LongRunning(next request.LongRunningRequestCheck) request.LongRunningRequestCheck {
	return LongRunning(next, g.inner)
}

// Handler routes what came through the API server's filters; next is the hub's
// own API.
func (g *Routes) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reading := readingOf(r)
		route := reading.route
		r, done := g.overseen(r, reading)
		defer done()
		switch route.to {
		case toCluster:
			g.serveCluster(w, r, reading, route)
		case toApplication:
			g.serveApplication(w, r, reading)
		case toFleet:
			g.config.Fleet.ServeHTTP(w, withURL(r, route.inner))
		case toNowhere:
			refuse(w, badPath(route.refusal))
		default:
			next.ServeHTTP(w, r)
		}
	})
}
