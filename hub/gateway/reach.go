package gateway

import (
	"fmt"
	"net/netip"
	"slices"
	"syscall"
)

// Reach says which addresses the hub connects to for a cluster in mode Direct.
// Whoever writes a Cluster chooses the address; without a limit the hub could be
// made to ask, with its own certificate, what only it can reach.
type Reach struct {
	// Allow, if any, are the only addresses. Empty is every address but those on
	// which no cluster's API server is: loopback, link-local, multicast and
	// unspecified ones, and those of clouds' metadata services.
	Allow []netip.Prefix
	// Own are the addresses of the hub's members, and OwnPorts the ports that they
	// serve there, which are refused whatever is allowed.
	Own      func() []netip.Addr
	OwnPorts []uint16
}

// metadata services that are not link-local: AWS (IPv6), Alibaba, Azure, Oracle.
var metadata = []netip.Addr{
	netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("100.100.100.200"),
	netip.MustParseAddr("168.63.129.16"), netip.MustParseAddr("192.0.0.192"),
}

// nat64 embeds IPv4 addresses, and so does 6to4: a gateway on the way would turn
// them back.
var embedding = []struct {
	prefix netip.Prefix
	at     int
}{{netip.MustParsePrefix("64:ff9b::/96"), 12}, {netip.MustParsePrefix("2002::/16"), 2}}

// refusal says why target is not connected to; nil if it is.
func (r Reach) refusal(target netip.AddrPort) error {
	address := plain(target.Addr())
	if slices.Contains(r.OwnPorts, target.Port()) && r.Own != nil && slices.ContainsFunc(r.Own(), func(own netip.Addr) bool { return plain(own) == address }) {
		return fmt.Errorf("spec.access.server leads to %s, which is the hub itself", target)
	}
	if len(r.Allow) > 0 {
		if slices.ContainsFunc(r.Allow, func(p netip.Prefix) bool { return p.Contains(address) }) {
			return nil
		}
		return fmt.Errorf("spec.access.server leads to %s, which directAccess.allow in the hub's configuration does not name", target)
	}
	if address.IsLoopback() || address.IsLinkLocalUnicast() || address.IsMulticast() || address.IsUnspecified() ||
		address == netip.AddrFrom4([4]byte{255, 255, 255, 255}) || address.Is4() && address.As4()[0] == 0 || slices.Contains(metadata, address) {
		return fmt.Errorf("spec.access.server leads to %s, where no cluster's API server is: name it in directAccess.allow in the hub's configuration if one is", target)
	}
	return nil
}

// plain is an address as it is in the end: without a zone, and IPv4 if it is that in
// IPv6's clothes.
func plain(address netip.Addr) netip.Addr {
	address = address.Unmap().WithZone("")
	for _, e := range embedding {
		if address.Is6() && e.prefix.Contains(address) {
			bytes := address.As16()
			return netip.AddrFrom4([4]byte(bytes[e.at : e.at+4]))
		}
	}
	return address
}

// control is a net.Dialer's: it sees what a name was resolved to, right before the
// connection, so that a name that changes its mind is not believed.
func (r Reach) control(_, address string, _ syscall.RawConn) error {
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("spec.access.server leads to %q, which is no address: %w", address, err)
	}
	return r.refusal(target)
}
