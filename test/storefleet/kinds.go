package storefleet

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/etcdapi"
	"tripod.dev/tripod/test/freeport"
	"tripod.dev/tripod/test/multikind/center/pki"
	"tripod.dev/tripod/test/storefleet/failpoint"
)

// Ours runs the hub's store and its etcd API alone in a process: the program
// storemember.
type Ours struct {
	Program string
	// Configure may adjust what a member starts with; also called at a restart.
	Configure func(*MemberConfig)
}

// Name implements Kind.
func (Ours) Name() string { return "tripod" }

// MemberConfig is the file that a process of ours starts from.
type MemberConfig struct {
	Name, DataDir, Client string
	Members               []store.Member
	Bootstrap             bool
	Authority, Pair       string // files; Pair without .crt and .key
	Tuning                Tuning
	// Version and Understands are store.Config's of the same names: what a member of
	// an older build would be.
	Version     string
	Understands uint32
	// Routes says where to dial instead of a member's address.
	Routes map[string]string
	// Control is a unix socket on which failpoints are armed (package failpoint);
	// empty: none. Armed are so from the start.
	Control string
	Armed   []failpoint.Arm
}

// Tuning is store.Config's of the same names; zero is the default.
type Tuning struct {
	SnapshotThreshold, TrailingLogs uint64
	SnapshotInterval                time.Duration
	SegmentBytes                    int
	SpaceReserve                    uint64
}

func (o Ours) command(f *Fleet, i int) (string, []string, error) {
	m := f.Members[i]
	c := MemberConfig{Name: m.name, DataDir: filepath.Join(m.Folder, "data"), Client: strings.TrimPrefix(m.URL(), "https://"),
		Bootstrap: i == 0, Authority: filepath.Join(f.folder, "ca.crt"), Pair: filepath.Join(f.folder, m.name)}
	for _, other := range f.Members {
		c.Members = append(c.Members, store.Member{Name: other.name,
			RaftAddress: strings.TrimPrefix(other.peerURL(), "https://"), PeerAddress: strings.TrimPrefix(other.URL(), "https://")})
	}
	if o.Configure != nil {
		o.Configure(&c)
	}
	text, err := json.Marshal(c)
	if err != nil {
		return "", nil, fmt.Errorf("encode the configuration of %s: %w", m.name, err)
	}
	file := filepath.Join(m.Folder, "config.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return "", nil, fmt.Errorf("write the configuration of %s: %w", m.name, err)
	}
	return o.Program, []string{file}, nil
}

func (Ours) admin() pki.Request {
	return pki.Request{CommonName: "tripod:admin", Organizations: []string{etcdapi.AdminsOrganization}}
}

func (Ours) server(name string) pki.Request {
	return pki.Request{CommonName: "tripod:member:" + name, Organizations: []string{store.MembersOrganization}, Hosts: loopback}
}

var loopback = []string{"localhost", "127.0.0.1"}

// Etcd runs upstream's etcd, from the program of the lab.
type Etcd struct {
	Program string
	// OnePort serves HTTP beside gRPC, which is etcd's default and what kubeadm
	// sets up: gRPC is then served by net/http, which halves what serializable
	// reads reach. Without it HTTP has a port of its own, as etcd's manual advises
	// for throughput.
	OnePort bool
}

// Name implements Kind.
func (e Etcd) Name() string {
	if e.OnePort {
		return "etcd " + store.EtcdVersion + " as kubeadm runs it"
	}
	return "etcd " + store.EtcdVersion
}

func (e Etcd) command(f *Fleet, i int) (string, []string, error) {
	m := f.Members[i]
	var members []string
	for _, other := range f.Members {
		members = append(members, other.name+"="+other.peerURL())
	}
	authority, pair := filepath.Join(f.folder, "ca.crt"), filepath.Join(f.folder, m.name)
	arguments := []string{"etcd",
		"--name", m.name, "--data-dir", filepath.Join(m.Folder, "data"),
		"--listen-client-urls", m.URL(), "--advertise-client-urls", m.URL(),
		"--listen-peer-urls", m.peerURL(), "--initial-advertise-peer-urls", m.peerURL(),
		"--initial-cluster", strings.Join(members, ","),
		"--client-cert-auth", "--trusted-ca-file", authority, "--cert-file", pair + ".crt", "--key-file", pair + ".key",
		"--peer-client-cert-auth", "--peer-trusted-ca-file", authority, "--peer-cert-file", pair + ".crt", "--peer-key-file", pair + ".key",
		"--quota-backend-bytes", "8589934592", "--log-level", "warn",
	}
	if !e.OnePort {
		arguments = append(arguments, "--listen-client-http-urls", "https://"+freeport.Address(m.plain))
	}
	return e.Program, arguments, nil
}

func (Etcd) admin() pki.Request { return pki.Request{CommonName: "root"} }

func (Etcd) server(name string) pki.Request { return pki.Request{CommonName: name, Hosts: loopback} }

// Kine runs one member of kine on SQLite, which k3s has in etcd's place. It
// understands the requests of an API server and no others.
type Kine struct{ Program, Version string }

// Name implements Kind.
func (k Kine) Name() string { return "kine " + k.Version + " with SQLite" }

func (k Kine) command(f *Fleet, i int) (string, []string, error) {
	m := f.Members[i]
	pair := filepath.Join(f.folder, m.name)
	return k.Program, []string{
		"--endpoint", "sqlite://" + filepath.Join(m.Folder, "state.db") + "?_journal=WAL&cache=shared&_busy_timeout=30000&_txlock=immediate",
		"--listen-address", strings.Replace(m.URL(), "https://", "tcp://", 1),
		"--server-cert-file", pair + ".crt", "--server-key-file", pair + ".key", "--metrics-bind-address", "0",
	}, nil
}

func (Kine) admin() pki.Request { return pki.Request{CommonName: "root"} }

func (Kine) server(name string) pki.Request { return pki.Request{CommonName: name, Hosts: loopback} }
