package center

import (
	"encoding/json"
	"fmt"

	"tripod.dev/tripod/test/multikind/center/pki"
	"tripod.dev/tripod/test/multikind/machine"
)

// storeConfig is the file that storemember reads. It is declared here because the lab
// tests the program, not its packages.
type storeConfig struct {
	Name, DataDir, Client string
	Members               []storeMember
	Bootstrap             bool
	Authority, Pair       string
}

type storeMember struct{ Name, RaftAddress, PeerAddress string }

const storeFile = "store.json"

// store is what the cluster's API server keeps its objects in: etcd, or one member of
// the hub's store in its place, which then has etcd's name and port.
func (p Plan) store() machine.Process {
	if p.HubStore {
		return machine.Process{Name: Etcd, Argv: []string{machine.BinDir + "/storemember", configDir + "/" + storeFile}}
	}
	return p.etcd()
}

// storeFlags tell the API server where its store is. The hub's speaks TLS alone.
func (p Plan) storeFlags() []string {
	if !p.HubStore {
		return []string{fmt.Sprintf("--etcd-servers=http://127.0.0.1:%d", EtcdPort)}
	}
	return []string{
		fmt.Sprintf("--etcd-servers=https://127.0.0.1:%d", EtcdPort), "--etcd-cafile=" + pkiDir + "/ca.crt",
		"--etcd-certfile=" + pkiDir + "/store-client.crt", "--etcd-keyfile=" + pkiDir + "/store-client.key",
	}
}

func (p Plan) storeConfig() ([]byte, error) {
	client := fmt.Sprintf("127.0.0.1:%d", EtcdPort)
	content, err := json.Marshal(storeConfig{
		Name: p.Name, DataDir: "/var/lib/etcd", Client: client, Bootstrap: true,
		Members:   []storeMember{{p.Name, fmt.Sprintf("127.0.0.1:%d", EtcdPeerPort), client}},
		Authority: pkiDir + "/ca.crt", Pair: pkiDir + "/store",
	})
	if err != nil {
		return nil, fmt.Errorf("encode the store's configuration: %w", err)
	}
	return content, nil
}

// storeCertificates are those of the hub's store and of its client.
func (p Plan) storeCertificates() map[string]pki.Request {
	if !p.HubStore {
		return nil
	}
	return map[string]pki.Request{
		"store":        {CommonName: "tripod:member:" + p.Name, Organizations: []string{"tripod:members"}, Hosts: []string{"127.0.0.1", "localhost"}},
		"store-client": {CommonName: "tripod:admin", Organizations: []string{"tripod:admins"}},
	}
}
