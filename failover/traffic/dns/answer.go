package dns

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"tripod.dev/tripod/failover/traffic"
)

// negativeTTL is how long a resolver may remember that a name does not exist or
// has no address: not longer than a switch may take to be seen.
const negativeTTL = 1

// Nameserver is a hub member that serves the zones.
type Nameserver struct {
	// Name is a label: the server is NAME.ZONE in each zone.
	Name string
	// Address is its IP address.
	Address string
}

// answer makes the whole reply to a query.
func (s *Server) answer(query *dns.Msg) *dns.Msg {
	reply := new(dns.Msg)
	switch {
	case query.Opcode != dns.OpcodeQuery:
		return reply.SetRcode(query, dns.RcodeNotImplemented)
	case len(query.Question) != 1:
		return reply.SetRcode(query, dns.RcodeFormatError)
	}
	reply.SetReply(query)
	if edns := query.IsEdns0(); edns != nil {
		reply.SetEdns0(1232, false)
	}
	question := query.Question[0]
	name := dns.CanonicalName(question.Name)
	zone := s.zoneOf(name)
	if zone == "" || question.Qclass != dns.ClassINET || question.Qtype == dns.TypeAXFR || question.Qtype == dns.TypeIXFR {
		reply.Rcode = dns.RcodeRefused
		return reply
	}
	if !s.table.ready.Load() {
		reply.Rcode = dns.RcodeServerFailure
		return reply
	}
	reply.Authoritative = true
	snapshot := s.table.current.Load()
	exists := s.resolve(reply, snapshot, zone, name, question)
	if !exists {
		reply.Rcode = dns.RcodeNameError
	}
	if len(reply.Answer) == 0 {
		reply.Ns = append(reply.Ns, s.soa(zone, zone, snapshot.serial))
	}
	return reply
}

// zoneOf is the closest configured zone above a name, or "".
func (s *Server) zoneOf(name string) string {
	best := ""
	for _, zone := range s.zones {
		if dns.IsSubDomain(zone, name) && len(zone) > len(best) {
			best = zone
		}
	}
	return best
}

// resolve fills the answer and tells whether the name exists.
func (s *Server) resolve(reply *dns.Msg, snapshot *names, zone, name string, q dns.Question) bool {
	if name == zone {
		s.apex(reply, snapshot, zone, q)
		return true
	}
	if address, ok := s.nameserver(zone, name); ok {
		addresses(reply, q, []string{address}, negativeTTL)
		return true
	}
	if route, ok := snapshot.hosts[name]; ok {
		ttl := uint32(route.TTL.Seconds())
		if q.Qtype == dns.TypeSRV {
			services(reply, q, route, ttl)
			return true
		}
		addresses(reply, q, ordered(route.Endpoints), ttl)
		return true
	}
	if route, ok := serviceName(snapshot, name); ok {
		if q.Qtype == dns.TypeSRV {
			services(reply, q, route, uint32(route.TTL.Seconds()))
		}
		return true
	}
	if route, cluster, ok := clusterName(snapshot, name); ok {
		var found []string
		for _, e := range route.Endpoints {
			if e.Cluster == cluster {
				found = append(found, e.Address)
			}
		}
		if len(found) > 0 {
			addresses(reply, q, found, uint32(route.TTL.Seconds()))
			return true
		}
	}
	return snapshot.parents[name]
}

// apex answers for the zone itself.
func (s *Server) apex(reply *dns.Msg, snapshot *names, zone string, q dns.Question) {
	if route, ok := snapshot.hosts[zone]; ok {
		addresses(reply, q, ordered(route.Endpoints), uint32(route.TTL.Seconds()))
	}
	switch q.Qtype {
	case dns.TypeSOA:
		reply.Answer = append(reply.Answer, s.soa(q.Name, zone, snapshot.serial))
	case dns.TypeNS:
		for _, server := range s.config.nameservers() {
			reply.Answer = append(reply.Answer, &dns.NS{Hdr: header(q.Name, dns.TypeNS, 3600), Ns: server.Name + "." + zone})
			reply.Extra = append(reply.Extra, record(server.Name+"."+zone, server.Address, 3600))
		}
	}
}

func (s *Server) nameserver(zone, name string) (string, bool) {
	servers := s.config.nameservers()
	i := slices.IndexFunc(servers, func(n Nameserver) bool {
		return dns.CanonicalName(n.Name+"."+zone) == name
	})
	if i < 0 {
		return "", false
	}
	return servers[i].Address, true
}

func (s *Server) soa(owner, zone string, serial uint32) *dns.SOA {
	return &dns.SOA{
		Hdr: header(owner, dns.TypeSOA, negativeTTL), Ns: s.config.nameservers()[0].Name + "." + zone, Mbox: "hostmaster." + zone,
		Serial: serial, Refresh: 60, Retry: 10, Expire: 3600, Minttl: negativeTTL,
	}
}

// serviceName resolves _service._proto.HOST.
func serviceName(snapshot *names, name string) (traffic.Route, bool) {
	labels := dns.SplitDomainName(name)
	if len(labels) < 3 || !strings.HasPrefix(labels[0], "_") || (labels[1] != "_tcp" && labels[1] != "_udp") {
		return traffic.Route{}, false
	}
	route, ok := snapshot.hosts[strings.Join(labels[2:], ".")+"."]
	return route, ok
}

// clusterName resolves CLUSTER.HOST, the target of a service record.
func clusterName(snapshot *names, name string) (traffic.Route, string, bool) {
	cluster, host, _ := strings.Cut(name, ".")
	route, ok := snapshot.hosts[host]
	return route, cluster, ok
}

// addresses adds the addresses of the family asked for.
func addresses(reply *dns.Msg, q dns.Question, list []string, ttl uint32) {
	for _, address := range list {
		rr := record(q.Name, address, ttl)
		if q.Qtype == rr.Header().Rrtype || q.Qtype == dns.TypeANY {
			reply.Answer = append(reply.Answer, rr)
		}
	}
}

func services(reply *dns.Msg, q dns.Question, route traffic.Route, ttl uint32) {
	host := dns.CanonicalName(route.Host)
	for _, e := range route.Endpoints {
		target := e.Cluster + "." + host
		reply.Answer = append(reply.Answer, &dns.SRV{
			Hdr: header(q.Name, dns.TypeSRV, ttl), Priority: 0, Weight: uint16(min(e.Weight, 65535)), Port: e.Port, Target: target,
		})
		reply.Extra = append(reply.Extra, record(target, e.Address, ttl))
	}
}

func record(owner, address string, ttl uint32) dns.RR {
	ip, err := netip.ParseAddr(address)
	if err == nil && ip.Is6() {
		return &dns.AAAA{Hdr: header(owner, dns.TypeAAAA, ttl), AAAA: ip.AsSlice()}
	}
	return &dns.A{Hdr: header(owner, dns.TypeA, ttl), A: ip.AsSlice()}
}

func header(owner string, kind uint16, ttl uint32) dns.RR_Header {
	return dns.RR_Header{Name: owner, Rrtype: kind, Class: dns.ClassINET, Ttl: ttl}
}

// ordered puts the addresses in an order drawn by weight: most clients use the
// first. An endpoint of weight 0 comes last.
func ordered(endpoints []traffic.Endpoint) []string {
	rest := slices.Clone(endpoints)
	out := make([]string, 0, len(rest))
	for len(rest) > 0 {
		total := int64(0)
		for _, e := range rest {
			total += int64(e.Weight)
		}
		i := 0
		if total > 0 {
			draw := rand.Int64N(total)
			for draw -= int64(rest[0].Weight); draw >= 0; draw -= int64(rest[i].Weight) {
				i++
			}
		}
		out = append(out, rest[i].Address)
		rest = slices.Delete(rest, i, i+1)
	}
	return out
}

// nameservers are the hub members, as far as they have IP addresses.
func (c Config) nameservers() []Nameserver {
	if c.Current == nil {
		return c.Nameservers
	}
	servers := slices.DeleteFunc(c.Current(), func(n Nameserver) bool {
		_, err := netip.ParseAddr(n.Address)
		return err != nil
	})
	if len(servers) == 0 {
		return c.Nameservers
	}
	return servers
}
