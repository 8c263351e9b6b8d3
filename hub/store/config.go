package store

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// DefaultQuota is what etcd recommends not to exceed.
const DefaultQuota = 8 << 30

// Member is one hub member as the others reach it.
type Member struct {
	// Name is the Raft server ID; it never changes.
	Name string
	// RaftAddress is host:port of the member's Raft listener.
	RaftAddress string
	// PeerAddress is host:port of the gRPC listener (package etcdapi) where the
	// member answers MemberService.
	PeerAddress string
	// Region, Center and Address (a host name or IP) are what the store keeps for
	// others; only Center means something to it: members of one fail together.
	Region, Center, Address string
}

// Timing holds the Raft time-outs of a profile. See safety.md section 2.
type Timing struct {
	Heartbeat time.Duration
	Election  time.Duration
	// LeaderLease is how long a leader that does not hear a majority goes on. Nothing rests
	// on it: reads and writes ask a majority. It is no longer than Heartbeat, so that a leader
	// that is cut off has resigned before another one is elected, and no shorter, because a
	// busy machine is late by as much (decision 0017).
	LeaderLease time.Duration
	// Commit bounds how late an idle follower learns that an entry is committed.
	Commit time.Duration
}

// LAN is the default profile: centers within a few milliseconds.
func LAN() Timing {
	return Timing{
		Heartbeat:   500 * time.Millisecond,
		Election:    500 * time.Millisecond,
		LeaderLease: 500 * time.Millisecond,
		Commit:      10 * time.Millisecond,
	}
}

// WAN is LAN with every time-out four times as long.
func WAN() Timing { return LAN().Scale(4) }

// Scale multiplies every time-out by factor.
func (t Timing) Scale(factor int) Timing {
	f := time.Duration(factor)
	return Timing{Heartbeat: t.Heartbeat * f, Election: t.Election * f, LeaderLease: t.LeaderLease * f, Commit: t.Commit * f}
}

// Config describes one hub member's store.
type Config struct {
	// Name is this member's name; it must be one of Members.
	Name string
	// DataDir is owned by the store alone; it is created if missing.
	DataDir string
	// RaftListen is the address to listen on for Raft; default: the port of this
	// member's RaftAddress on all interfaces.
	RaftListen string
	// Members are the members of the first configuration, and where to find them
	// until the address book is committed. The Raft log, not this list, says who
	// is a member and who votes.
	Members []Member
	// Bootstrap is set on exactly one member of a new hub. It writes the first
	// configuration (all Members as voters) if this member has no state yet, and
	// does nothing on later starts.
	Bootstrap bool
	// TLS holds this member's certificate (Certificates or the Get functions) and
	// the hub's CA in RootCAs and ClientCAs. It serves both directions of Raft and
	// the calls among members. Peers are recognised by the names in their
	// certificates, not by their addresses.
	TLS *tls.Config
	// Roots are the CAs that are trusted now, asked at each handshake; nil takes those
	// of TLS for good.
	Roots func() *x509.CertPool
	// Dial opens connections to other members; default: a net.Dialer.
	Dial func(ctx context.Context, address string) (net.Conn, error)

	// OnRenewal is called on every member for each lease renewal applied or
	// replayed, in log order, on the goroutine that applies: it must not block.
	OnRenewal func(RenewalApplied)
	// OnRestore is called after a snapshot from the leader has replaced the
	// state: renewals in between were not seen. It must not block.
	OnRestore func()

	Timing Timing
	// RequestTimeout bounds a proposal or a linearizable read whose context has
	// no earlier deadline.
	RequestTimeout time.Duration
	// MaxRequestBytes bounds one command.
	MaxRequestBytes int
	// SnapshotThreshold is how many entries are logged between two snapshots, and
	// TrailingLogs how many are kept behind one for members that lag.
	SnapshotThreshold uint64
	TrailingLogs      uint64
	SnapshotInterval  time.Duration
	// SegmentBytes is the size of one file of the Raft log.
	SegmentBytes int
	// SpaceReserve is the free space of DataDir's file system, in bytes, under
	// which key-value writes are refused. Under half of it nothing is logged.
	SpaceReserve uint64
	// Quota bounds the part of the database that is in use, in bytes; the same on
	// every member. Over it growth is refused hub-wide with ErrNoSpace until less
	// than 90 % is in use. Default 8 GiB.
	Quota int64
	// History is for how long superseded revisions stay at least, if no client
	// drops them before; default an hour, negative bounds it by number alone.
	// HistoryRevisions is how many stay at most; 0 is any number.
	History          time.Duration
	HistoryRevisions int64
	// LeaseCheckpoint is how often the remaining time of long etcd leases is
	// committed, so that a new leader does not start them afresh.
	LeaseCheckpoint time.Duration

	// Version is that of the program, for the other members and for people.
	Version string
	// Understands is the highest level of the command set that this member says it
	// understands, and applies; 0 is all that this build does. A lower one makes it
	// behave as an older build, for tests of upgrades.
	Understands uint32

	// AuditInterval is how often the data are compared with the other members'.
	AuditInterval time.Duration

	// Fail makes steps fail in tests; nil in production.
	Fail Failpoints

	Logger *slog.Logger
	// Registerer takes the store's metrics; nil registers none.
	Registerer prometheus.Registerer
}

// WithDefaults fills what is zero.
func (c Config) WithDefaults() Config {
	if c.Timing == (Timing{}) {
		c.Timing = LAN()
	}
	if c.RequestTimeout == 0 {
		c.RequestTimeout = 5*time.Second + 2*c.Timing.Election
	}
	if c.MaxRequestBytes == 0 {
		c.MaxRequestBytes = 1536 * 1024
	}
	if c.SnapshotThreshold == 0 {
		c.SnapshotThreshold = 50_000
	}
	if c.TrailingLogs == 0 {
		c.TrailingLogs = 20_000
	}
	if c.SnapshotInterval == 0 {
		c.SnapshotInterval = 30 * time.Second
	}
	if c.SegmentBytes == 0 {
		c.SegmentBytes = 16 << 20
	}
	if c.SpaceReserve == 0 {
		c.SpaceReserve = 64 << 20
	}
	if c.Quota == 0 {
		c.Quota = DefaultQuota
	}
	if c.History == 0 {
		c.History = time.Hour
	}
	if c.LeaseCheckpoint == 0 {
		c.LeaseCheckpoint = 5 * time.Minute
	}
	if c.Understands == 0 {
		c.Understands = CommandVersion
	}
	if c.AuditInterval == 0 {
		c.AuditInterval = 10 * time.Minute
	}
	if c.Dial == nil {
		var d net.Dialer
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) { return d.DialContext(ctx, "tcp", address) }
	}
	if c.OnRenewal == nil {
		c.OnRenewal = func(RenewalApplied) {}
	}
	if c.OnRestore == nil {
		c.OnRestore = func() {}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if self, ok := c.member(c.Name); ok && c.RaftListen == "" {
		if _, port, err := net.SplitHostPort(self.RaftAddress); err == nil {
			c.RaftListen = net.JoinHostPort("", port)
		}
	}
	return c
}

// Validate reports everything that is wrong with c after WithDefaults.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if _, ok := c.member(c.Name); !ok {
		bad("store: member %q is not in the list of members: add it with its addresses", c.Name)
	}
	if c.DataDir == "" {
		bad("store: no data directory: set one that only this member uses")
	}
	if c.Understands > CommandVersion {
		bad("store: level %d of the command set is above %d, which this build understands: set it lower, or leave it out", c.Understands, CommandVersion)
	}
	if c.TLS == nil {
		bad("store: no TLS configuration: members speak nothing in plain text")
	}
	seen := map[string]bool{}
	for _, m := range c.Members {
		if m.Name == "" || seen[m.Name] {
			bad("store: member name %q is empty or used twice: every member needs a name of its own", m.Name)
		}
		seen[m.Name] = true
		for _, address := range []string{m.RaftAddress, m.PeerAddress} {
			if _, _, err := net.SplitHostPort(address); err != nil {
				bad("store: member %q: address %q is not host:port: %v", m.Name, address, err)
			}
		}
	}
	errs = append(errs, c.Timing.validate())
	if c.HistoryRevisions < 0 {
		bad("store: %d superseded revisions are to stay: use 0 for any number", c.HistoryRevisions)
	}
	if c.Quota < 0 {
		bad("store: the quota of the database is %d bytes: there is no database without a limit; leave it out for %d bytes", c.Quota, int64(DefaultQuota))
	}
	if c.SpaceReserve/2 < 2*uint64(c.SegmentBytes) {
		bad("store: half the space reserve (%d bytes) is less than two log segments (%d bytes each): raise SpaceReserve or lower SegmentBytes",
			c.SpaceReserve, c.SegmentBytes)
	}
	return errors.Join(errs...)
}

func (t Timing) validate() error {
	if t.Commit <= 0 || t.LeaderLease < 5*time.Millisecond || t.LeaderLease > t.Heartbeat || t.Heartbeat > t.Election {
		return fmt.Errorf("store: timing %+v: want 0 < commit, 5ms <= leader lease <= heartbeat <= election", t)
	}
	return nil
}

func (c Config) member(name string) (Member, bool) {
	for _, m := range c.Members {
		if m.Name == name {
			return m, true
		}
	}
	return Member{}, false
}

// roots are the CAs that count at a handshake.
func (c Config) roots() func() *x509.CertPool {
	if c.Roots != nil {
		return c.Roots
	}
	return func() *x509.CertPool { return c.TLS.ClientCAs }
}
