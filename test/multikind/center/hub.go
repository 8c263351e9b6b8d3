package center

import (
	"fmt"
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"

	"tripod.dev/tripod/test/multikind/machine"
)

// hubDir is the hub member's folder inside a machine, and below lib on the host.
const hubDir = "tripod-hub"

// hubConfig is the file that tripod-hub reads. It is declared here because the lab
// uses programs, not packages, of what it tests.
type hubConfig struct {
	Name         string      `json:"name"`
	DataDir      string      `json:"dataDir"`
	Bootstrap    bool        `json:"bootstrap,omitempty"`
	HubTokenFile string      `json:"hubTokenFile"`
	Members      []hubMember `json:"members"`
	DNS          hubDNS      `json:"dns"`
	Drivers      []string    `json:"drivers"`
}

type hubMember struct {
	Name    string `json:"name"`
	Region  string `json:"region"`
	Center  string `json:"center"`
	Address string `json:"address"`
}

type hubDNS struct {
	Listen string   `json:"listen"`
	Zones  []string `json:"zones"`
}

// DNSZone is the zone that the lab's hub serves.
const DNSZone = "example.test"

// PrepareHub writes the configuration of the center's hub member below lib. members
// are all centers with a hub member; the first one forms the hub. token is the secret
// they share.
func (p Plan) PrepareHub(lib string, members []Plan, token []byte) error {
	inside := filepath.Join("/var/lib", hubDir)
	config := hubConfig{
		Name:         p.HubMember(),
		DataDir:      inside + "/data",
		Bootstrap:    members[0].Name == p.Name,
		HubTokenFile: inside + "/hub-token",
		DNS:          hubDNS{Listen: p.Address.String() + ":53", Zones: []string{DNSZone}},
		Drivers:      []string{"register"}, // test/register; it runs where a scenario puts it
	}
	for _, member := range members {
		config.Members = append(config.Members, hubMember{
			Name: member.HubMember(), Region: member.Region, Center: member.Name, Address: member.Address.String(),
		})
	}
	content, err := yaml.Marshal(config)
	if err != nil {
		return fmt.Errorf("encode hub configuration: %w", err)
	}
	folder := filepath.Join(lib, hubDir)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("make hub folder: %w", err)
	}
	for name, data := range map[string][]byte{"config.yaml": content, "hub-token": token} {
		if err := os.WriteFile(filepath.Join(folder, name), data, 0o600); err != nil {
			return fmt.Errorf("write hub configuration: %w", err)
		}
	}
	return nil
}

// HubAdminKubeconfig is where the member that formed the hub leaves its
// administrator's kubeconfig, below lib.
func HubAdminKubeconfig(lib string) string {
	return filepath.Join(lib, hubDir, "data", "admin.kubeconfig")
}

// HubProcess is the center's hub member.
func (p Plan) HubProcess() machine.Process {
	return machine.Process{
		Name: Hub,
		// A hub member has a machine of its own in production; here it shares two cores with
		// three clusters, and its elections take a quarter of a second.
		Nice: -10,
		Argv: []string{machine.BinDir + "/tripod-hub", "--config", "/var/lib/" + hubDir + "/config.yaml"},
	}
}
