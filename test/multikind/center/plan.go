// Package center knows what one center of a lab consists of: its addresses, its
// certificates, the configuration of its Kubernetes cluster and of its hub member.
// It is made of functions from a Plan to files and command lines; it starts nothing.
package center

import (
	"fmt"
	"net/netip"
	"strings"

	"tripod.dev/tripod/test/multikind/cgroup"
)

// Ports of a center. The hub member has the ports a user knows (6443, 6444, 6445,
// 2379, 53), so the cluster's own API server and etcd move away from theirs.
const (
	APIServerPort = 7443
	EtcdPort      = 12379
	EtcdPeerPort  = 12380
	HubPort       = 6443
	// AgentPort is a node port, where the agents of the other centers ask.
	AgentPort = 30743
)

// MaxCenters is how many centers a lab can have.
const MaxCenters = 16

// Plan is where a center lives. Two labs have different subnets; pod and service
// networks repeat in every lab, since they never leave their center.
type Plan struct {
	Name   string
	Region string
	// Index counts the lab's centers from 0.
	Index int
	// Address is the center's address on the lab's bridge, Gateway the host's.
	Address netip.Addr
	Gateway netip.Addr
	// HardwareAddr and GatewayHardwareAddr are fixed, so that nobody ever asks for them:
	// a center without power is silent, not unreachable.
	HardwareAddr        string
	GatewayHardwareAddr string
	// HostLink is the host's end of the cable, Bridge what it is plugged into.
	HostLink    string
	Bridge      string
	PodCIDR     netip.Prefix
	ServiceCIDR netip.Prefix
	// HubStore says that the cluster keeps its objects in a member of the hub's store
	// instead of etcd.
	HubStore bool
	// Cgroup is the center's path below every cgroup hierarchy.
	Cgroup cgroup.Group
}

// Plans lays out the centers names of a lab; index (0 to 99) chooses its subnet.
func Plans(lab string, index int, names []string) ([]Plan, error) {
	if index < 0 || index > 99 {
		return nil, fmt.Errorf("plan lab: index %d is not in 0..99", index)
	}
	if len(names) == 0 || len(names) > MaxCenters {
		return nil, fmt.Errorf("plan lab: %d centers, want 1 to %d", len(names), MaxCenters)
	}
	plans := make([]Plan, 0, len(names))
	seen := map[string]bool{}
	for i, name := range names {
		if err := checkName(name); err != nil {
			return nil, err
		}
		if seen[name] {
			return nil, fmt.Errorf("plan lab: center %s is named twice", name)
		}
		seen[name] = true
		plans = append(plans, Plan{
			Name:                name,
			Region:              region(name),
			Index:               i,
			Address:             netip.AddrFrom4([4]byte{10, 210, byte(index), byte(11 + i)}),
			Gateway:             netip.AddrFrom4([4]byte{10, 210, byte(index), 1}),
			HardwareAddr:        fmt.Sprintf("02:d2:00:00:%02x:%02x", index, 11+i),
			GatewayHardwareAddr: fmt.Sprintf("02:d2:00:00:%02x:01", index),
			HostLink:            fmt.Sprintf("tripod%dc%d", index, i),
			Bridge:              Bridge(index),
			PodCIDR:             netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(100 + i), 0, 0}), 16),
			ServiceCIDR:         netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(150 + i), 0, 0}), 16),
			Cgroup:              LabCgroup(lab) + "/" + cgroup.Group(name),
		})
	}
	return plans, nil
}

// Bridge is the name of the host bridge of the lab with the given index.
func Bridge(index int) string { return fmt.Sprintf("tripod%d", index) }

// LabCgroup is the parent of the cgroups of a lab's centers.
func LabCgroup(lab string) cgroup.Group { return cgroup.Group("tripod-lab-" + lab) }

// APIServer is the URL of the cluster's own API server.
func (p Plan) APIServer() string { return fmt.Sprintf("https://%s:%d", p.Address, APIServerPort) }

// HubMember is the name of the center's hub member.
func (p Plan) HubMember() string { return "hub-" + p.Name }

// DNSAddress is the cluster's DNS service.
func (p Plan) DNSAddress() netip.Addr { return p.serviceAddress(10) }

// KubernetesAddress is the service address of the API server.
func (p Plan) KubernetesAddress() netip.Addr { return p.serviceAddress(1) }

func (p Plan) serviceAddress(host byte) netip.Addr {
	bytes := p.ServiceCIDR.Addr().As4()
	bytes[3] = host
	return netip.AddrFrom4(bytes)
}

func region(center string) string {
	if i := strings.LastIndexByte(center, '-'); i > 0 {
		return center[:i]
	}
	return center
}

// checkName accepts a DNS label that is also a good folder, node and cluster name.
func checkName(name string) error {
	valid := len(name) > 0 && len(name) <= 40 && name[0] != '-' && name[len(name)-1] != '-'
	for _, r := range name {
		valid = valid && (r == '-' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9')
	}
	if !valid {
		return fmt.Errorf("plan lab: center name %q must be 1 to 40 lower case letters, digits and inner dashes, such as north-1", name)
	}
	return nil
}
