// Package hub puts a hub member together: store, API server, gateway, sessions,
// view, and the work that only the leader does.
package hub

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"regexp"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"tripod.dev/tripod/failover/lease"
	"tripod.dev/tripod/hub/api/endpoint"
)

// Ports of every hub member.
const (
	APIPort  = endpoint.APIPort // Kubernetes API and gateway, HTTPS
	RPCPort  = endpoint.RPCPort // agents, members and automation, TLS
	RaftPort = "6445"           // Raft among members, mutual TLS
	EtcdPort = "2379"           // etcd v3 API among members and for backup tools, mutual TLS
)

// Config is the small file that a hub member is started with.
type Config struct {
	// Name of this member; it is one of Members and never changes.
	Name string `json:"name"`
	// DataDir holds everything this member keeps. It survives restarts.
	DataDir string `json:"dataDir"`
	// Bootstrap is true on exactly one member of a new hub: it makes the hub's
	// CA and forms the first Raft configuration.
	Bootstrap bool `json:"bootstrap,omitempty"`
	// HubTokenFile holds the secret that all members share. With it a new member
	// proves itself to the bootstrap member, and the other way round.
	HubTokenFile string `json:"hubTokenFile"`
	// Members are members of the hub, this one included: all of a new hub, and
	// later enough of them to find the others. Who is a member is what the hub has
	// committed (tripodctl hub members), not this list.
	Members []MemberConfig `json:"members"`
	// PreferredCenter is where the leader should be; empty is anywhere.
	PreferredCenter string `json:"preferredCenter,omitempty"`
	// RemoveDeadMembersAfter is after how long a member that does not answer is
	// removed, for instance 72h; empty is never.
	RemoveDeadMembersAfter metav1.Duration `json:"removeDeadMembersAfter,omitempty,omitzero"`
	// Profile is LAN (default) or WAN: WAN multiplies every time-out.
	Profile string `json:"profile,omitempty"`
	// DNS serves the global services.
	DNS DNSConfig `json:"dns,omitempty"`
	// StoreQuota bounds what is in use of the database, for instance 8Gi, which is
	// the default; the same on every member. Over it the hub refuses what grows.
	StoreQuota *resource.Quantity `json:"storeQuota,omitempty"`
	// StoreHistory is for how long superseded revisions stay if the API servers do
	// not drop them before, which they do every five minutes; default 1h.
	StoreHistory metav1.Duration `json:"storeHistory,omitempty,omitzero"`
	// StoreHistoryRevisions is how many stay at most; 0 is any number.
	StoreHistoryRevisions int64 `json:"storeHistoryRevisions,omitempty"`
	// EncryptionConfigFile is an apiserver.config.k8s.io/v1 EncryptionConfiguration
	// of your own, for instance with a KMS; the same on every member. Empty encrypts
	// everything with keys that the hub makes and gives to joining members.
	EncryptionConfigFile string `json:"encryptionConfigFile,omitempty"`
	// AuthenticationConfigFile is an apiserver.config.k8s.io/v1
	// AuthenticationConfiguration: OIDC issuers, as many as there are, with CEL. The
	// same on every member; changes act without a restart, but for anonymous. Empty
	// believes certificates and tokens of the hub's own only.
	AuthenticationConfigFile string `json:"authenticationConfigFile,omitempty"`
	// AuditPolicyFile is an audit.k8s.io/v1 Policy (--audit-policy-file); empty
	// records metadata of all requests, and plans, runs and approvals with content.
	AuditPolicyFile string `json:"auditPolicyFile,omitempty"`
	// Audit says where audit events go.
	Audit AuditConfig `json:"audit,omitempty,omitzero"`
	// DirectAccess limits where clusters in mode Direct may be.
	DirectAccess DirectAccessConfig `json:"directAccess,omitempty,omitzero"`
	// Drivers are the dataset drivers that run beside the agents (their --drivers), by
	// name; the same on every member. A dataset of any other driver than these and
	// postgresql is refused.
	Drivers []string `json:"drivers,omitempty"`
}

// MemberConfig is one hub member as everyone else reaches it.
type MemberConfig struct {
	Name   string `json:"name"`
	Region string `json:"region"`
	Center string `json:"center"`
	// Address is a host name or an IP address without a port.
	Address string `json:"address"`
}

// DNSConfig says where the authoritative DNS server listens and for what.
type DNSConfig struct {
	// Listen is HOST:PORT for UDP and TCP; empty serves no DNS.
	Listen string `json:"listen,omitempty"`
	// Zones are answered with authority, for instance example.test.
	Zones []string `json:"zones,omitempty"`
}

// validate names every field that is wrong.
func (m MemberConfig) validate() error {
	var wrong []error
	if !memberName.MatchString(m.Name) {
		wrong = append(wrong, fmt.Errorf("name is %q: use lower-case letters, digits and '-'", m.Name))
	}
	if m.Region == "" || m.Center == "" {
		wrong = append(wrong, fmt.Errorf("%s needs a region and a center", m.Name))
	}
	if m.Address == "" {
		wrong = append(wrong, fmt.Errorf("%s needs an address", m.Name))
	}
	return errors.Join(wrong...)
}

var memberName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// What the store is not limited to: 64 MiB, and a history in which no watch could
// catch up.
const (
	smallestQuota   = 64 << 20
	shortestHistory = 10 * time.Minute
	fewestRevisions = 1000
)

// LoadConfig reads a configuration file. Unknown fields are errors, so that a
// misspelt one is not silently ignored.
func LoadConfig(path string) (Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("read the configuration: %w; `tripod-hub --help` shows an example", err)
	}
	var c Config
	if err := yaml.UnmarshalStrict(text, &c); err != nil {
		return Config{}, fmt.Errorf("parse the configuration %s: %w", path, err)
	}
	c = c.withDefaults()
	if err := c.Validate(); err != nil {
		return Config{}, fmt.Errorf("check the configuration %s: %w", path, err)
	}
	return c, nil
}

func (c Config) withDefaults() Config {
	if c.Profile == "" {
		c.Profile = "LAN"
	}
	return c
}

// Validate names every field that is wrong and how to mend it.
func (c Config) Validate() error {
	var wrong []error
	add := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	if c.DataDir == "" {
		add("dataDir is empty: name a folder on a durable disk")
	}
	if c.HubTokenFile == "" {
		add("hubTokenFile is empty: name a file with the secret all members share, for instance made by `openssl rand -hex 32`")
	}
	if c.Profile != "LAN" && c.Profile != "WAN" {
		add("profile is %q: use LAN or WAN", c.Profile)
	}
	if !slices.ContainsFunc(c.Members, func(m MemberConfig) bool { return m.Name == c.Name }) {
		add("name is %q, which members does not list: it says which of the members this one is", c.Name)
	}
	switch {
	case len(c.Members) == 0:
		add("members is empty: list every member of the hub with name, region, center and address")
	case c.Bootstrap && len(c.Members)%2 == 0:
		add("members has %d entries: an even number survives no more losses than one less", len(c.Members))
	}
	names, addresses := map[string]bool{}, map[string]bool{}
	for i, m := range c.Members {
		if err := m.validate(); err != nil {
			add("members[%d]: %w", i, err)
		}
		if names[m.Name] || addresses[m.Address] {
			add("members[%d] (%s, %s) stands twice", i, m.Name, m.Address)
		}
		names[m.Name], addresses[m.Address] = true, true
	}
	if after := c.RemoveDeadMembersAfter.Duration; after != 0 && after < time.Hour {
		add("removeDeadMembersAfter is %v: a member that restarts or is serviced is not dead; use an hour at least, or leave it out", after)
	}
	if history := c.StoreHistory.Duration; history != 0 && history < shortestHistory {
		add("storeHistory is %v: clients that watch must be able to catch up; use 10m at least, or leave it out for 1h", history)
	}
	if c.StoreHistoryRevisions != 0 && c.StoreHistoryRevisions < fewestRevisions {
		add("storeHistoryRevisions is %d: clients that watch must be able to catch up; use 1000 at least, or leave it out", c.StoreHistoryRevisions)
	}
	if quota := c.StoreQuota; quota != nil && quota.Value() < smallestQuota {
		add("storeQuota is %v: there is no database without a limit, and one under 64Mi is full of the hub's own objects; leave it out for 8Gi", quota)
	}
	if err := c.Audit.validate(); err != nil {
		wrong = append(wrong, err)
	}
	if _, err := c.DirectAccess.prefixes(); err != nil {
		wrong = append(wrong, err)
	}
	if err := c.validateDrivers(); err != nil {
		wrong = append(wrong, err)
	}
	if c.DNS.Listen != "" {
		if _, _, err := net.SplitHostPort(c.DNS.Listen); err != nil {
			add("dns.listen is %q: use HOST:PORT", c.DNS.Listen)
		}
		if len(c.DNS.Zones) == 0 {
			add("dns.listen is set and dns.zones is empty: name the zones to answer for, or leave dns out")
		}
	}
	return errors.Join(wrong...)
}

// self returns this member's own entry.
func (c Config) self() MemberConfig {
	for _, m := range c.Members {
		if m.Name == c.Name {
			return m
		}
	}
	return MemberConfig{}
}

// leaseTiming returns the lease times of the profile.
func (c Config) leaseTiming() lease.Config {
	if c.Profile == "WAN" {
		return lease.WAN()
	}
	return lease.LAN()
}

// readToken reads the secret that all members share.
func readToken(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read the hub token: %w; make one with `openssl rand -hex 32` and copy it to every member", err)
		}
		return nil, fmt.Errorf("read the hub token: %w; the user that runs tripod-hub must be able to read hubTokenFile", err)
	}
	return bytes.TrimSpace(text), nil
}

// etcdAddress is where this member's own API server finds the store, and others
// forward to.
func (c Config) etcdAddress() string { return net.JoinHostPort(c.self().Address, EtcdPort) }
