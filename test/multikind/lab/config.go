// Package lab makes fleets of real Kubernetes clusters on one Linux machine, breaks
// them, repairs them and takes them away. A lab is what lies in its state folder and
// in the kernel; every function may be called by another process than the one before,
// and after any crash.
package lab

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Nodes says whether a center's cluster can run pods.
type Nodes string

// Real nodes have a kubelet and containers. Without nodes there is only a control
// plane, which boots in a few seconds.
const (
	NodesReal Nodes = "real"
	NodesNone Nodes = "none"
)

// Defaults of Config.
const (
	DefaultName      = "default"
	DefaultStateRoot = "/var/lib/tripod-lab"
	DefaultBinDir    = "bin"
)

// cacheName is the folder beside the labs that holds images.
const cacheName = "cache"

// Config says what a lab is. The zero value of a field means "as it is now", or the
// default in a new lab.
type Config struct {
	// Name tells labs on the same machine apart.
	Name string
	// StateRoot holds all labs of the machine, one folder each, and what they share.
	StateRoot string
	// BinDir holds the lab's programs: multikind, kubernode, tripod-hub and so on. What is
	// missing is built when the current folder is in the source tree.
	BinDir string
	// Centers are the names of the centers, each REGION-NUMBER.
	Centers []string
	Nodes   Nodes
	// Store is where the clusters' API servers keep their objects; empty is "as it is
	// now", etcd in a new lab.
	Store Store
	// Hub says whether each center has a hub member and an agent; nil is "as it is now".
	Hub *bool
}

// Store is what an API server keeps its objects in.
type Store string

// Upstream's etcd, or the hub's own store in its place.
const (
	StoreEtcd   Store = "etcd"
	StoreTripod Store = "tripod"
)

// DefaultCenters are two in the same city and a remote one.
func DefaultCenters() []string { return []string{"north-1", "north-2", "south-1"} }

func (c Config) withDefaults() (Config, error) {
	if c.Name == "" {
		c.Name = DefaultName
	}
	if c.StateRoot == "" {
		c.StateRoot = DefaultStateRoot
	}
	if c.BinDir == "" {
		c.BinDir = DefaultBinDir
	}
	var err error
	if c.StateRoot, err = filepath.Abs(c.StateRoot); err != nil {
		return c, fmt.Errorf("locate state: %w", err)
	}
	if c.BinDir, err = filepath.Abs(c.BinDir); err != nil {
		return c, fmt.Errorf("locate programs: %w", err)
	}
	return c, c.Validate()
}

// Validate reports everything that is wrong with the configuration.
func (c Config) Validate() error {
	var wrong []error
	if c.Name == cacheName || strings.Trim(c.Name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || len(c.Name) > 40 {
		wrong = append(wrong, fmt.Errorf("lab name %q must be lower case letters, digits and dashes, at most 40, and not %q", c.Name, cacheName))
	}
	if !slices.Contains([]Nodes{"", NodesReal, NodesNone}, c.Nodes) {
		wrong = append(wrong, fmt.Errorf("nodes %q must be %q or %q", c.Nodes, NodesReal, NodesNone))
	}
	if !slices.Contains([]Store{"", StoreEtcd, StoreTripod}, c.Store) {
		wrong = append(wrong, fmt.Errorf("store %q must be %q or %q", c.Store, StoreEtcd, StoreTripod))
	}
	return errors.Join(wrong...)
}
