package identity

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"
)

// minTokenBytes keeps the hub token out of reach of guessing: an impostor who
// answers a joining member learns one HMAC and may try tokens against it.
const minTokenBytes = 16

// PeerAddress is where another member answers tripod-join/1.
type PeerAddress struct {
	Name string
	// Address is host:port of the member's port 6444.
	Address string
}

// Config describes the identity of one hub member.
type Config struct {
	// Name is this member's name: a DNS label that never changes.
	Name string
	// DataDir is the member's data directory; identity owns DataDir/pki and
	// DataDir/admin.kubeconfig.
	DataDir string
	// Advertise is the host name or IP by which others reach this member.
	Advertise string
	// SANs are further DNS names and IPs for the member's certificate.
	SANs []string
	// APIPort is the port of the Kubernetes API in admin.kubeconfig.
	APIPort int
	// Bootstrap is set on exactly one member of a new hub: it makes the CA if
	// neither it nor any peer that it reaches has one.
	Bootstrap bool
	// Peers are the other members, as the configuration file has them.
	Peers []PeerAddress
	// Token is the secret that all members of the hub share. It may be empty
	// in a hub of one member.
	Token []byte

	// Understands is the highest level of the store's command set that this program
	// understands.
	Understands uint32

	// JoinRetry is how long to wait between two rounds of asking peers.
	JoinRetry time.Duration
	// MemberValidity is the life of this member's own certificate.
	MemberValidity time.Duration
	// Dial opens connections to peers; default: a net.Dialer with a time-out.
	Dial func(network, address string) (net.Conn, error)
	// Now is the wall clock; certificates are about wall time.
	Now    func() time.Time
	Logger *slog.Logger
}

// WithDefaults fills what is zero.
func (c Config) WithDefaults() Config {
	if c.APIPort == 0 {
		c.APIPort = 6443
	}
	if c.JoinRetry == 0 {
		c.JoinRetry = time.Second
	}
	if c.MemberValidity == 0 {
		c.MemberValidity = 90 * 24 * time.Hour
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{Timeout: 3 * time.Second}).Dial
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Validate reports everything that is wrong with c after WithDefaults.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("identity: "+format, args...)) }
	if !isLabel(c.Name) {
		bad("member name %q is not a DNS label (lower-case letters, digits and '-', 63 characters at most): choose another", c.Name)
	}
	if c.DataDir == "" {
		bad("no data directory: set one that only this member uses")
	}
	if c.Advertise == "" {
		bad("no advertise address: set the host name or IP by which agents and members reach member %q", c.Name)
	}
	if len(c.Peers) > 0 && len(c.Token) < minTokenBytes {
		bad("the hub token has %d bytes, wants %d at least: write one with `openssl rand -hex 32` and give the same file to every member",
			len(c.Token), minTokenBytes)
	}
	for _, peer := range c.Peers {
		if peer.Name == c.Name {
			bad("member %q is its own peer: list only the other members", peer.Name)
		}
		if _, _, err := net.SplitHostPort(peer.Address); err != nil {
			bad("peer %q: address %q is not host:port: %w", peer.Name, peer.Address, err)
		}
	}
	if !c.Bootstrap && len(c.Peers) == 0 {
		bad("member %q neither bootstraps the hub nor has peers to fetch the hub's CA from: set one of both", c.Name)
	}
	return errors.Join(errs...)
}

// isLabel reports whether s is a DNS label, RFC 1123.
func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
			return false
		}
	}
	return true
}
