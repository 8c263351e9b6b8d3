package apiserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/endpoints/request"

	"tripod.dev/tripod/hub/encryption"
)

// Store says where the hub's store answers the etcd v3 API.
type Store struct {
	// Endpoints are URLs: https://HOST:PORT, or unixs://PATH; http://HOST:PORT with
	// Dial.
	Endpoints []string
	// Dial opens secured connections to the endpoints. Upstream's client reads the CA
	// once in its life; who dials by itself may follow it. Without it CA, Certificate
	// and Key are used.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// CA, Certificate and Key are PEM files; they are read at each handshake.
	// They are empty only for a plain-text endpoint of a test.
	CA, Certificate, Key string
	// Prefix is put before every key.
	Prefix string
}

// Identity names the PEM files of the member; hub/identity writes them.
type Identity struct {
	// CA signs the client certificates that are believed.
	CA string
	// Authorities are those that count now; nil follows the file CA.
	Authorities Authorities
	// Certificate and Key serve; they are followed when they change.
	Certificate, Key string
	// ServiceAccountKey signs service account tokens. All members have the same.
	ServiceAccountKey string
}

// Audit says what is written down about requests.
type Audit struct {
	// Log takes the events; hub/audit is one. Optional.
	Log audit.Backend
	// PolicyFile is an audit.k8s.io/v1 Policy; the default is level Metadata
	// for everything but the member's own reads and health checks.
	PolicyFile string
	// WebhookConfigFile is a kubeconfig that says where events are sent as well, in
	// batches; empty sends nothing.
	WebhookConfigFile string
}

// Hooks are how other parts of the hub take part in serving. All are optional.
type Hooks struct {
	// RequestInfo wraps the resolver that tells verbs and resources from URLs.
	RequestInfo func(request.RequestInfoResolver) request.RequestInfoResolver
	// LongRunning wraps the check that exempts a request from time-outs.
	LongRunning func(request.LongRunningRequestCheck) request.LongRunningRequestCheck
	// Handler wraps the API's handler inside the filters that authenticate,
	// authorize, audit and limit.
	Handler func(http.Handler) http.Handler
	// Passes tells requests that Handler answers by itself, that have no body and do not
	// last, and that end with their context: they go through a shorter chain of filters.
	// Optional.
	Passes func(*http.Request) bool
	// Front wraps everything, filters and all: what it puts into a request's context
	// is there for the hooks above. It needs Handler.
	Front func(http.Handler) http.Handler
	// Ready adds checks to /readyz: a check's name, and what is not ready.
	Ready map[string]func(*http.Request) error
}

// Config describes the API server of one hub member.
type Config struct {
	// Member is the hub member's name.
	Member string
	// Listen is the host:port to serve on.
	Listen string
	// Advertise is the host name or IP by which clients reach this member.
	Advertise string
	// DataDir takes generated configuration.
	DataDir  string
	Store    Store
	Identity Identity
	Audit    Audit
	// AuthenticationConfig is a file with an apiserver.config.k8s.io
	// AuthenticationConfiguration, for OIDC. Optional.
	AuthenticationConfig string
	// Encryption of what is kept; nil keeps it in plain text.
	Encryption *encryption.Box
	// Drivers are the dataset drivers that exist; default: postgresql.
	Drivers []string
	// EventTTL is how long events are kept.
	EventTTL time.Duration
	Hooks    Hooks
	Logger   *slog.Logger
}

// WithDefaults fills what is zero.
func (c Config) WithDefaults() Config {
	if c.Listen == "" {
		c.Listen = ":6443"
	}
	if c.Store.Prefix == "" {
		c.Store.Prefix = "/registry"
	}
	if len(c.Drivers) == 0 {
		c.Drivers = []string{"postgresql"}
	}
	if c.EventTTL == 0 {
		c.EventTTL = time.Hour
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Validate reports everything that is wrong with c after WithDefaults.
func (c Config) Validate() error {
	var errs []error
	for _, required := range []struct{ value, what string }{
		{c.Member, "member name"},
		{c.Advertise, "advertise address"},
		{c.DataDir, "data directory"},
		{c.Identity.CA, "CA file"},
		{c.Identity.Certificate, "certificate file"},
		{c.Identity.Key, "key file"},
		{c.Identity.ServiceAccountKey, "service account key file"},
	} {
		if required.value == "" {
			errs = append(errs, fmt.Errorf("apiserver: no %s: set one", required.what))
		}
	}
	if len(c.Store.Endpoints) == 0 {
		errs = append(errs, errors.New("apiserver: no store endpoint: set the address of the member's own store"))
	}
	return errors.Join(errs...)
}

// Runnable is a piece of leader-only work.
type Runnable struct {
	// Name is for logs.
	Name string
	// Run works until ctx ends and returns when all its goroutines have.
	Run func(ctx context.Context) error
}
