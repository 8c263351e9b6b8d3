package session

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"tripod.dev/tripod/member-agent/redial"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// Receiver is what the sessions bring something to. All methods but Carry and
// Stream must return soon and not call back; calls of different members overlap,
// except Grant's.
type Receiver interface {
	// Grant is called for every answer that changes the roles or moves the
	// deadline, in the order of their authority. The roles replace all earlier
	// ones and end at the deadline, a monotonic time of this process.
	Grant(grant *agentv1.Grant, deadline time.Time)
	// Desired is never older in incarnation than what was seen before.
	Desired(member string, state *agentv1.DesiredState)
	// Carry does a directive once and returns its result; ctx ends at the
	// directive's deadline. It is not called again for an id that is under way
	// or among the last that were done.
	Carry(ctx context.Context, directive *agentv1.Directive) *agentv1.DirectiveResult
	// Stream sends the view to one member until ctx ends or send fails.
	Stream(ctx context.Context, send func(*agentv1.AgentMessage) error) error
	// Connected says that a session with a member was opened: what was
	// broadcast before did not reach it.
	Connected(member string)
}

// Config describes an agent replica's sessions.
type Config struct {
	// Members are host:port of every hub member's session listener, as the agent
	// was installed with them.
	Members []string
	// Told are the members that the hub told of in an earlier life.
	Told []*agentv1.HubMember
	// Addresses is called, without blocking, with the addresses in use whenever
	// they change, and RememberMembers with what the hub told last.
	Addresses       func([]string)
	RememberMembers func([]*agentv1.HubMember)
	// Authorities is called, without blocking, with what a member says of the hub's CAs.
	Authorities func(*agentv1.HubAuthorities)
	// Replica is this pod's name; Version the program's.
	Replica string
	Version string
	// TLS dials with the agent's certificate and trusts the hub's CA.
	TLS *tls.Config
	// Incarnation and Revision are the highest that this cluster remembers.
	Incarnation uint64
	Revision    int64
	// Remember is called, without blocking, when a higher incarnation was seen.
	Remember func(incarnation uint64)
	// Heartbeat fills a new heartbeat; seq and replica are set afterwards.
	Heartbeat func() *agentv1.Heartbeat
	Receiver  Receiver
	// Tick is the time between heartbeats until a member has told the fleet's.
	Tick time.Duration
	// ConnectTimeout bounds one attempt, from dialling to Welcome.
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
	if c.Tick == 0 {
		c.Tick = time.Second
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = 5 * time.Second
	}
	if c.RedialMin == 0 {
		c.RedialMin = 100 * time.Millisecond
	}
	if c.RedialMax == 0 {
		c.RedialMax = 2 * time.Second
	}
	if c.Dial == nil {
		d := net.Dialer{Timeout: redial.Reach}
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) { return d.DialContext(ctx, "tcp", address) }
	}
	if c.Remember == nil {
		c.Remember = func(uint64) {}
	}
	if c.Addresses == nil {
		c.Addresses = func([]string) {}
	}
	if c.Authorities == nil {
		c.Authorities = func(*agentv1.HubAuthorities) {}
	}
	if c.RememberMembers == nil {
		c.RememberMembers = func([]*agentv1.HubMember) {}
	}
	if c.Heartbeat == nil {
		c.Heartbeat = func() *agentv1.Heartbeat { return &agentv1.Heartbeat{Observable: true} }
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Validate reports everything that is wrong with c after WithDefaults.
func (c Config) Validate() error {
	var errs []error
	if len(c.Members) == 0 {
		errs = append(errs, errors.New("sessions: no hub member: give host:6444 of every one"))
	}
	seen := map[string]bool{}
	for _, address := range c.Members {
		if _, _, err := net.SplitHostPort(address); err != nil {
			errs = append(errs, fmt.Errorf("sessions: hub member %q is not host:port: %w", address, err))
		}
		if seen[address] {
			errs = append(errs, fmt.Errorf("sessions: hub member %q is given twice: name every member once", address))
		}
		seen[address] = true
	}
	if c.Replica == "" {
		errs = append(errs, errors.New("sessions: no replica name: set it to the pod's name"))
	}
	if c.TLS == nil || c.Receiver == nil {
		errs = append(errs, errors.New("sessions: TLS and Receiver must be set"))
	}
	if c.Tick <= 0 || c.RedialMin <= 0 || c.RedialMax < c.RedialMin {
		errs = append(errs, fmt.Errorf("sessions: tick %v and redial waits %v..%v: must be positive and ordered", c.Tick, c.RedialMin, c.RedialMax))
	}
	return errors.Join(errs...)
}
