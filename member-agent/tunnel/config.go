package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"k8s.io/client-go/rest"

	"tripod.dev/tripod/member-agent/redial"
)

// Protocol is the ALPN protocol of tunnels.
const Protocol = "tripod-tunnel/1"

// streamWindow is how much of one stream may be on its way unread.
const streamWindow = 16 << 20

// Config describes an agent replica's tunnels.
type Config struct {
	// Members are host:port of every hub member's session listener.
	Members []string
	// Replica is this pod's name.
	Replica string
	// TLS dials with the agent's certificate and trusts the hub's CA.
	TLS *tls.Config
	// RESTConfig reaches the cluster's own API server as the agent; a token
	// file is read again as it rotates.
	RESTConfig *rest.Config
	// KeepAlive is the time between pings; three missed end the tunnel.
	KeepAlive time.Duration
	// ConnectTimeout bounds one attempt to dial.
	ConnectTimeout time.Duration
	// RedialMin and RedialMax bound the wait between two attempts (redial.Config).
	RedialMin time.Duration
	RedialMax time.Duration
	// Dial opens TCP connections; default: a net.Dialer.
	Dial   func(ctx context.Context, address string) (net.Conn, error)
	Logger *slog.Logger
}

// WithDefaults fills what may be left out.
func (c Config) WithDefaults() Config {
	if c.KeepAlive == 0 {
		c.KeepAlive = 2 * time.Second
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = 5 * time.Second
	}
	if c.RedialMin == 0 {
		c.RedialMin = 200 * time.Millisecond
	}
	if c.RedialMax == 0 {
		c.RedialMax = 2 * time.Second
	}
	if c.Dial == nil {
		d := net.Dialer{Timeout: redial.Reach}
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) { return d.DialContext(ctx, "tcp", address) }
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Validate reports everything that is wrong with c after WithDefaults.
func (c Config) Validate() error {
	var errs []error
	for _, address := range c.Members {
		if _, _, err := net.SplitHostPort(address); err != nil {
			errs = append(errs, fmt.Errorf("tunnel: hub member %q is not host:port: %w", address, err))
		}
	}
	if len(c.Members) == 0 || c.Replica == "" || c.TLS == nil || c.RESTConfig == nil {
		errs = append(errs, errors.New("tunnel: Members, Replica, TLS and RESTConfig must be set"))
	}
	if c.RedialMin <= 0 || c.RedialMax < c.RedialMin {
		errs = append(errs, fmt.Errorf("tunnel: redial waits %v..%v: must be positive and ordered", c.RedialMin, c.RedialMax))
	}
	return errors.Join(errs...)
}
