// Package ledger holds the manifests of the example application: a PostgreSQL
// ledger and an unchanged Deployment in front of it, placed over a fleet.
package ledger

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"text/template"
)

// What clients of the ledger need to know.
const (
	Namespace = "pay"
	Host      = "ledger.pay.example.test"
	Port      = "30432"
	Database  = "ledger"
	// CredentialsSecret holds the passwords; ClientUser may read and write the
	// ledger's tables, and its password is under ClientPasswordKey.
	CredentialsSecret = "ledger-db-credentials"
	ClientUser        = "ledger"
	ClientPasswordKey = "client-password"
)

// Cluster is one member cluster that holds a copy.
type Cluster struct {
	Name   string
	Region string
	// Address is where the cluster's node ports are reached by the others and
	// by clients.
	Address string
}

// Params fill the manifests.
type Params struct {
	// Clusters hold the copies; the first is the first primary. Clusters of the
	// first one's region are linked synchronously, the others asynchronously.
	Clusters []Cluster
	// HostPathRoot is the folder on every node that holds the database's volume.
	HostPathRoot string
	// HoldSeconds is how long a center that lost the primary role is no
	// automatic target.
	HoldSeconds int
}

// Host is the global service's name.
func (Params) Host() string { return Host }

// Port is the node port of every copy.
func (Params) Port() string { return Port }

// Survive is the loss of one center, where the first one's region has another.
func (p Params) Survive() int {
	for _, c := range p.Clusters[1:] {
		if c.Region == p.Clusters[0].Region {
			return 1
		}
	}
	return 0
}

// Link of a cluster's copy.
func (p Params) Link(c Cluster) string {
	if c.Region == p.Clusters[0].Region {
		return "Synchronous"
	}
	return "Asynchronous"
}

//go:embed *.yaml
var manifests embed.FS

// Render returns all manifests as one YAML stream, namespace first. The files
// are Go templates over Params, in the order of their names.
func Render(p Params) ([]byte, error) {
	if len(p.Clusters) == 0 {
		return nil, errors.New("render the ledger: give at least one cluster")
	}
	if p.HostPathRoot == "" {
		p.HostPathRoot = "/var/lib/ledger-db"
	}
	if p.HoldSeconds == 0 {
		p.HoldSeconds = 15
	}
	names, err := fs.Glob(manifests, "*.yaml")
	if err != nil {
		return nil, fmt.Errorf("list the manifests: %w", err)
	}
	var out bytes.Buffer
	for _, name := range names {
		t, err := template.ParseFS(manifests, name)
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", name, err)
		}
		out.WriteString("---\n")
		if err := t.Execute(&out, p); err != nil {
			return nil, fmt.Errorf("render %s: %w", name, err)
		}
	}
	return out.Bytes(), nil
}
