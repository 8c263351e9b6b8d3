package term

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// Reader reads the store's state as applied on this member.
type Reader interface {
	// Range returns the keys with prefix and the revision they are of.
	Range(ctx context.Context, prefix string) ([]mvccpb.KeyValue, int64, error)
	// Decrypt returns what a value of Range says.
	Decrypt(ctx context.Context, kv mvccpb.KeyValue) ([]byte, error)
	// Revision is the newest one applied here.
	Revision() int64
}

// DefaultPrefix is where the API server keeps Tripod's kinds.
const DefaultPrefix = "/registry/tripod.dev/"

// admissionAge is how old an answer of Admitted may be.
const admissionAge = 250 * time.Millisecond

// Committed reads Datasets and Clusters straight from the local state, below the
// API server and its caches: what it returns is committed, and at least as new
// as the caller asks for. Objects are shared and must not be changed. It is safe
// for concurrent use.
type Committed struct {
	datasets shelf[v1alpha1.Dataset, *v1alpha1.Dataset]
	clusters shelf[v1alpha1.Cluster, *v1alpha1.Cluster]
	// For the gateway's route to applications; see applications.go.
	applications shelf[v1alpha1.Application, *v1alpha1.Application]
	services     shelf[v1alpha1.GlobalService, *v1alpha1.GlobalService]

	clock    Clock
	pledgers Pledgers
	mu       sync.Mutex
	admitted map[string]error
	asked    time.Duration
	roles    roleLedger
	// of is the generation of datasets that roles were computed from.
	of uint64
}

// NewCommitted reads below prefix. Grants say what pledgers names; nil offers no
// pledges.
func NewCommitted(reader Reader, prefix string, clock Clock, pledgers Pledgers) *Committed {
	return &Committed{
		datasets:     shelf[v1alpha1.Dataset, *v1alpha1.Dataset]{reader: reader, prefix: prefix + "datasets/"},
		clusters:     shelf[v1alpha1.Cluster, *v1alpha1.Cluster]{reader: reader, prefix: prefix + "clusters/"},
		applications: shelf[v1alpha1.Application, *v1alpha1.Application]{reader: reader, prefix: prefix + "applications/"},
		services:     shelf[v1alpha1.GlobalService, *v1alpha1.GlobalService]{reader: reader, prefix: prefix + "globalservices/"},

		clock: clock, pledgers: pledgers,
	}
}

// Datasets returns all datasets at one revision, which is the newest applied
// here when the call began.
func (c *Committed) Datasets(ctx context.Context) ([]*v1alpha1.Dataset, int64, error) {
	list, revision, _, err := c.datasets.read(ctx)
	return list, revision, err
}

// Roles returns the table at the newest revision applied here when the call
// began, or a newer one. It must not be changed.
func (c *Committed) Roles(ctx context.Context) (RoleTable, error) {
	datasets, revision, generation, err := c.datasets.read(ctx)
	if err != nil {
		return RoleTable{}, err
	}
	clusters, _, err := c.Clusters(ctx)
	if err != nil {
		return RoleTable{}, err
	}
	terms := Terms{places(clusters), c.pledgers}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case generation < c.of: // another caller has read a newer state meanwhile; nobody counts this one
		var once roleLedger
		once.advance(datasets, terms)
		once.table.Revision, once.table.version = revision, 0
		return once.table, nil
	case generation > c.of || !slices.Equal(terms.Places, c.roles.terms.Places):
		c.roles.advance(datasets, terms)
		c.of = generation
	}
	table := c.roles.table
	table.Revision = revision
	return table, nil
}

// Clusters returns all clusters at one revision.
func (c *Committed) Clusters(ctx context.Context) ([]*v1alpha1.Cluster, int64, error) {
	list, revision, _, err := c.clusters.read(ctx)
	return list, revision, err
}

// Admitted is nil for a cluster that exists and was accepted; else it says what
// to do. The answer may be a quarter of a second old.
func (c *Committed) Admitted(cluster string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.clock(); c.admitted == nil || now-c.asked >= admissionAge {
		clusters, _, _, err := c.clusters.read(context.Background()) // memory and a local file
		if err != nil {
			return fmt.Errorf("read the clusters of the hub: %w", err)
		}
		c.asked, c.admitted = now, map[string]error{}
		for _, cl := range clusters {
			c.admitted[cl.Name] = admission(cl)
		}
	}
	err, known := c.admitted[cluster]
	if !known {
		return fmt.Errorf("cluster %q is not known to the hub: make it one with `tripodctl join-token %s`, or apply a Cluster of that name", cluster, cluster)
	}
	return err
}

func admission(c *v1alpha1.Cluster) error {
	if c.Spec.Admission == v1alpha1.AdmissionAccepted && c.DeletionTimestamp == nil {
		return nil
	}
	return fmt.Errorf("cluster %q is not accepted: set spec.admission of Cluster %q to Accepted", c.Name, c.Name)
}

type object[T any] interface {
	*T
	metav1.Object
}

// shelf keeps the decoded objects of one prefix; only what changed is decoded
// again.
type shelf[T any, P object[T]] struct {
	reader Reader
	prefix string

	mu         sync.Mutex
	revision   int64
	generation uint64 // of the content; grows when any object has changed
	held       map[string]entry[P]
	list       []P
}

type entry[P any] struct {
	created, modified int64
	object            P
}

func (s *shelf[T, P]) read(ctx context.Context) (list []P, revision int64, generation uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held != nil && s.reader.Revision() == s.revision {
		return s.list, s.revision, s.generation, nil
	}
	kvs, revision, err := s.reader.Range(ctx, s.prefix)
	if err != nil {
		return nil, 0, 0, err
	}
	if s.unchangedLocked(kvs) {
		s.revision = revision
		return s.list, revision, s.generation, nil
	}
	held := make(map[string]entry[P], len(kvs))
	for _, kv := range kvs {
		e, ok := s.held[string(kv.Key)]
		if !ok || e.modified != kv.ModRevision {
			o := P(new(T))
			value, err := s.reader.Decrypt(ctx, kv)
			if err != nil {
				return nil, 0, 0, fmt.Errorf("decrypt %s at revision %d: %w", kv.Key, kv.ModRevision, err)
			}
			if err := json.Unmarshal(value, o); err != nil {
				return nil, 0, 0, fmt.Errorf("decode %s at revision %d: %w", kv.Key, kv.ModRevision, err)
			}
			o.SetResourceVersion(strconv.FormatInt(kv.ModRevision, 10))
			e = entry[P]{kv.CreateRevision, kv.ModRevision, o}
		}
		held[string(kv.Key)] = e
		list = append(list, e.object)
	}
	s.held, s.list, s.revision = held, list, revision
	s.generation++
	return list, revision, s.generation, nil
}

func (s *shelf[T, P]) unchangedLocked(kvs []mvccpb.KeyValue) bool {
	if s.held == nil || len(kvs) != len(s.held) {
		return false
	}
	for _, kv := range kvs {
		if e, ok := s.held[string(kv.Key)]; !ok || e.modified != kv.ModRevision {
			return false
		}
	}
	return true
}
