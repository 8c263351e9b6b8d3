// Package network is the cabling of a lab: one bridge on the host, one cable per
// center, and the cuts between them. Cuts are rules on the bridge, outside the
// centers, so they outlast a power cut and nothing inside a center can see them.
package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"tripod.dev/tripod/test/multikind/center"
	"tripod.dev/tripod/test/multikind/fault"
)

// inside is a center's end of its cable.
const inside = "eth0"

// Build makes the lab's bridge, with the host as its gateway. It may be repeated.
func Build(plans []center.Plan) error {
	first := plans[0]
	hardware, err := net.ParseMAC(first.GatewayHardwareAddr)
	if err != nil {
		return fmt.Errorf("build bridge: %w", err)
	}
	bridge, err := netlink.LinkByName(first.Bridge)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		attributes := netlink.NewLinkAttrs()
		attributes.Name, attributes.HardwareAddr = first.Bridge, hardware
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attributes}); err != nil {
			return fmt.Errorf("add bridge %s: %w", first.Bridge, err)
		}
		bridge, err = netlink.LinkByName(first.Bridge)
	}
	if err != nil {
		return fmt.Errorf("find bridge %s: %w", first.Bridge, err)
	}
	if err := netlink.AddrReplace(bridge, address(first.Gateway)); err != nil {
		return fmt.Errorf("set address %s: %w", first.Gateway, err)
	}
	if err := netlink.LinkSetUp(bridge); err != nil {
		return fmt.Errorf("raise bridge: %w", err)
	}
	for _, plan := range plans {
		if err := netlinkHost.know(bridge.Attrs().Index, plan.Address, plan.HardwareAddr); err != nil {
			return err
		}
	}
	return nil
}

// Connect plugs the machine with the host process number pid into the bridge.
func Connect(plan center.Plan, others []center.Plan, pid int) error {
	if err := Disconnect(plan); err != nil {
		return err
	}
	bridge, err := netlink.LinkByName(plan.Bridge)
	if err != nil {
		return fmt.Errorf("find bridge %s: %w", plan.Bridge, err)
	}
	hardware, err := net.ParseMAC(plan.HardwareAddr)
	if err != nil {
		return fmt.Errorf("connect %s: %w", plan.Name, err)
	}
	attributes := netlink.NewLinkAttrs()
	attributes.Name, attributes.MasterIndex = plan.HostLink, bridge.Attrs().Index
	cable := &netlink.Veth{
		LinkAttrs: attributes, PeerName: inside, PeerHardwareAddr: hardware, PeerNamespace: netlink.NsPid(pid),
	}
	if err := netlink.LinkAdd(cable); err != nil {
		return fmt.Errorf("add cable of %s: %w", plan.Name, err)
	}
	if err := configureInside(plan, others, pid); err != nil {
		return fmt.Errorf("configure network of %s: %w", plan.Name, err)
	}
	if err := netlink.LinkSetUp(cable); err != nil {
		return fmt.Errorf("raise cable of %s: %w", plan.Name, err)
	}
	return nil
}

func configureInside(plan center.Plan, others []center.Plan, pid int) error {
	namespace, err := netns.GetFromPid(pid)
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer namespace.Close()
	raw, err := netlink.NewHandleAt(namespace)
	if err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	defer raw.Close()
	handle := host{raw}
	for _, name := range []string{"lo", inside} {
		link, err := handle.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find %s: %w", name, err)
		}
		if err := handle.LinkSetUp(link); err != nil {
			return fmt.Errorf("raise %s: %w", name, err)
		}
	}
	link, err := handle.LinkByName(inside)
	if err != nil {
		return fmt.Errorf("find %s: %w", inside, err)
	}
	if err := handle.AddrReplace(link, address(plan.Address)); err != nil {
		return fmt.Errorf("set address: %w", err)
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: plan.Gateway.AsSlice()}
	if err := handle.RouteReplace(route); err != nil {
		return fmt.Errorf("set route: %w", err)
	}
	if err := handle.know(link.Attrs().Index, plan.Gateway, plan.GatewayHardwareAddr); err != nil {
		return err
	}
	for _, other := range others {
		if other.Name == plan.Name {
			continue
		}
		if err := handle.know(link.Attrs().Index, other.Address, other.HardwareAddr); err != nil {
			return err
		}
	}
	return nil
}

// Unplug takes the center's cable down, at once: from here on no packet passes. A
// cable that does not exist is unplugged.
func Unplug(plan center.Plan) error {
	return onLink(plan.HostLink, netlink.LinkSetDown)
}

// Disconnect removes the center's cable.
func Disconnect(plan center.Plan) error {
	return onLink(plan.HostLink, netlink.LinkDel)
}

// Connected reports whether the center's cable is up.
func Connected(plan center.Plan) bool {
	link, err := netlink.LinkByName(plan.HostLink)
	return err == nil && link.Attrs().Flags&net.FlagUp != 0
}

// Remove takes the bridge of the lab with the given index away, with all cables in
// it and all cuts.
func Remove(ctx context.Context, index int) error {
	name := center.Bridge(index)
	links, err := netlink.LinkList()
	for errors.Is(err, netlink.ErrDumpInterrupted) && ctx.Err() == nil {
		links, err = netlink.LinkList() // another lab changed its links meanwhile
	}
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	for _, link := range links {
		if strings.HasPrefix(link.Attrs().Name, name+"c") {
			if err := onLink(link.Attrs().Name, netlink.LinkDel); err != nil {
				return err
			}
		}
	}
	if err := onLink(name, netlink.LinkDel); err != nil {
		return err
	}
	return nft(ctx, fmt.Sprintf("table bridge %s\ndelete table bridge %s\n", name, name))
}

// Cut makes the bridge drop exactly the given directions, at once and together; an
// empty set heals everything.
func Cut(ctx context.Context, plans []center.Plan, cuts fault.Cuts) error {
	rules, err := cutRules(plans, cuts)
	if err != nil {
		return err
	}
	return nft(ctx, rules)
}

// cutRules renders cuts. The host itself, and whoever reaches the lab through it, is
// fault.Outside: its packets pass the bridge's input and output, not its forwarding.
func cutRules(plans []center.Plan, cuts fault.Cuts) (string, error) {
	links := map[string]string{}
	for _, plan := range plans {
		links[plan.Name] = plan.HostLink
	}
	chains := map[string]*strings.Builder{"input": {}, "output": {}, "forward": {}}
	for _, cut := range cuts.Sorted() {
		for _, end := range []string{cut.From, cut.To} {
			if end != fault.Outside && links[end] == "" {
				return "", fmt.Errorf("cut %s: the lab has no center %s", cut, end)
			}
		}
		switch {
		case cut.From == fault.Outside:
			fmt.Fprintf(chains["output"], "\t\toifname %q drop\n", links[cut.To])
		case cut.To == fault.Outside:
			fmt.Fprintf(chains["input"], "\t\tiifname %q drop\n", links[cut.From])
		default:
			fmt.Fprintf(chains["forward"], "\t\tiifname %q oifname %q drop\n", links[cut.From], links[cut.To])
		}
	}
	table := plans[0].Bridge
	var out strings.Builder
	fmt.Fprintf(&out, "table bridge %s\ndelete table bridge %s\ntable bridge %s {\n", table, table, table)
	for _, hook := range []string{"input", "output", "forward"} {
		fmt.Fprintf(&out, "\tchain %s {\n\t\ttype filter hook %s priority 0; policy accept;\n%s\t}\n", hook, hook, chains[hook])
	}
	return out.String() + "}\n", nil
}

func nft(ctx context.Context, rules string) error {
	command := exec.CommandContext(ctx, "nft", "-f", "-")
	command.Stdin = strings.NewReader(rules)
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("load packet rules: %w: %s", err, out)
	}
	return nil
}

// host is a network namespace's link and neighbour tables.
type host struct{ *netlink.Handle }

var netlinkHost = host{&netlink.Handle{}}

// know enters who has an address, for good.
func (h host) know(link int, ip netip.Addr, hardware string) error {
	mac, err := net.ParseMAC(hardware)
	if err != nil {
		return fmt.Errorf("parse hardware address: %w", err)
	}
	neighbour := &netlink.Neigh{
		LinkIndex: link, IP: ip.AsSlice(), HardwareAddr: mac, State: netlink.NUD_PERMANENT, Family: netlink.FAMILY_V4,
	}
	if err := h.NeighSet(neighbour); err != nil {
		return fmt.Errorf("enter neighbour %s: %w", ip, err)
	}
	return nil
}

func onLink(name string, do func(netlink.Link) error) error {
	link, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, err)
	}
	if err := do(link); err != nil {
		return fmt.Errorf("change link %s: %w", name, err)
	}
	return nil
}

func address(ip netip.Addr) *netlink.Addr {
	return &netlink.Addr{IPNet: &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(24, 32)}}
}
