// Package dns is the authoritative DNS server of every hub member. It answers
// for the hosts of global services from the routes that the engine committed, as
// its member last saw them. A member that is cut off from the leader goes on
// answering with what it knows: an old answer leads to a side that refuses
// writes, and no answer leads nowhere.
package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

// Config of a Server.
type Config struct {
	// Listen is HOST:PORT for UDP and TCP.
	Listen string
	// Zones are answered with authority; everything else is refused.
	Zones []string
	// Nameservers are the hub members, this one included; the first is named in
	// the SOA record.
	Nameservers []Nameserver
	// Current are the hub members now, in the place of Nameservers unless empty.
	// It is asked for every answer that needs it. Optional.
	Current func() []Nameserver
	// RESTConfig reaches the member's own API server.
	RESTConfig *rest.Config
	// Registerer takes the metrics; nil registers none.
	Registerer prometheus.Registerer
	Log        *slog.Logger
}

// Validate says what is missing or wrong, and how to mend it.
func (c Config) Validate() error {
	var wrong []error
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		wrong = append(wrong, fmt.Errorf("dns: listen is %q: give HOST:PORT, for instance :53", c.Listen))
	}
	if len(c.Zones) == 0 {
		wrong = append(wrong, errors.New("dns: no zones: name the zones whose names lead to global services, for instance example.test"))
	}
	for _, z := range c.Zones {
		if _, ok := dns.IsDomainName(z); !ok || z == "" || z == "." {
			wrong = append(wrong, fmt.Errorf("dns: zone %q is not a domain name", z))
		}
	}
	if len(c.Nameservers) == 0 {
		wrong = append(wrong, errors.New("dns: no nameservers: name the hub members and their addresses"))
	}
	for _, n := range c.Nameservers {
		if _, err := netip.ParseAddr(n.Address); err != nil {
			wrong = append(wrong, fmt.Errorf("dns: nameserver %s has address %q: give an IP address", n.Name, n.Address))
		}
	}
	if c.RESTConfig == nil {
		wrong = append(wrong, errors.New("dns: RESTConfig is missing: give the rest.Config of the member's own API server"))
	}
	return errors.Join(wrong...)
}

// Server answers DNS queries.
type Server struct {
	config  Config
	zones   []string
	client  dynamic.Interface
	table   *Table
	metrics *metrics
	udp     net.PacketConn
	tcp     net.Listener
}

// New takes the addresses, so that a port in use is told at once. Run gives them
// back.
func New(config Config) (*Server, error) {
	if config.Log == nil {
		config.Log = slog.Default()
	}
	if err := config.Validate(); err != nil {
		return nil, err
	}
	client, err := dynamic.NewForConfig(config.RESTConfig)
	if err != nil {
		return nil, fmt.Errorf("make a client of the hub's API for DNS: %w", err)
	}
	s := &Server{config: config, client: client, table: NewTable(), metrics: newMetrics(config.Registerer)}
	for _, z := range config.Zones {
		s.zones = append(s.zones, dns.CanonicalName(z))
	}
	if s.udp, err = net.ListenPacket("udp", config.Listen); err != nil {
		return nil, fmt.Errorf("listen for DNS over UDP: %w", err)
	}
	// The same port for TCP, also when the system chose it.
	if s.tcp, err = net.Listen("tcp", s.udp.LocalAddr().String()); err != nil {
		_ = s.udp.Close()
		return nil, fmt.Errorf("listen for DNS over TCP: %w", err)
	}
	return s, nil
}

// Addr is where the server listens, UDP and TCP.
func (s *Server) Addr() string { return s.udp.LocalAddr().String() }

// Table holds the routes in effect.
func (s *Server) Table() *Table { return s.table }

// Run answers until ctx ends. It is called once.
func (s *Server) Run(ctx context.Context) error {
	servers := []*dns.Server{
		{PacketConn: s.udp, Handler: s, UDPSize: 1232},
		{Listener: s.tcp, Handler: s, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second},
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var running sync.WaitGroup
	failed := make(chan error, len(servers))
	for _, server := range servers {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		running.Go(func() {
			if err := server.ActivateAndServe(); err != nil && ctx.Err() == nil {
				failed <- fmt.Errorf("serve DNS on %s: %w", s.Addr(), err)
				cancel()
			}
		})
		// Shutdown does nothing to a server that has not started.
		select {
		case <-started:
		case <-ctx.Done():
		}
	}
	running.Go(func() { s.follow(ctx) })
	<-ctx.Done()
	for _, server := range servers {
		_ = server.Shutdown()
	}
	running.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// ServeDNS answers one query.
func (s *Server) ServeDNS(w dns.ResponseWriter, query *dns.Msg) {
	reply := s.answer(query)
	if w.LocalAddr().Network() == "udp" {
		size := dns.MinMsgSize
		if edns := query.IsEdns0(); edns != nil {
			size = max(size, min(int(edns.UDPSize()), 1232))
		}
		reply.Truncate(size)
	}
	s.metrics.answered(query, reply)
	if err := w.WriteMsg(reply); err != nil {
		s.config.Log.Debug("could not answer a DNS query", "error", err)
	}
}
