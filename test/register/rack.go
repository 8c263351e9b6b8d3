package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"tripod.dev/tripod/failover/driver"
	"tripod.dev/tripod/test/multikind/traffic"
)

// rackBeat is how often one of many primaries is heard by the copy that follows it.
const rackBeat = 2 * time.Second

// rack is a driver that holds the copies itself, one for each dataset that it is told
// of. Each has a folder, and a data port that is closed while the copy is stopped.
// Parameters of a dataset:
//
//	port       its copy's data port
//	refuses    a verb that the copy refuses: promote
type rack struct {
	folder string
	takes  time.Duration

	mu      sync.Mutex
	copies  map[string]*register
	journal []Deed
}

// Deed is one change that a rack was told to make. The times are of the clock that all
// processes of a machine share.
type Deed struct {
	Dataset string `json:"dataset"`
	Verb    string `json:"verb"`
	Epoch   int64  `json:"epoch"`
	Began   int64  `json:"began"`
	Ended   int64  `json:"ended"`
	Error   string `json:"error,omitempty"`
}

var _ driver.Driver = (*rack)(nil)

func newRack(folder string, takes time.Duration) *rack {
	return &rack{folder: folder, takes: takes, copies: map[string]*register{}}
}

func (k *rack) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.copies {
		r.close()
	}
}

// at returns the copy of a dataset, which is opened when it is first asked for.
func (k *rack) at(d driver.Dataset) (*register, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if r := k.copies[d.Key()]; r != nil {
		return r, nil
	}
	port := d.Parameters["port"]
	if port == "" {
		return nil, fmt.Errorf("dataset %s: give its member of cluster %s the parameter port, for the copy to listen at: %w", d.Key(), d.Cluster, driver.ErrRefused)
	}
	folder := filepath.Join(k.folder, d.Namespace+"."+d.Name)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	r, err := open(folder, ":"+port, rackBeat)
	if err != nil {
		return nil, fmt.Errorf("dataset %s: %w", d.Key(), err)
	}
	k.copies[d.Key()] = r
	return r, nil
}

// change is one change to a copy: it takes its time, and is written down.
func change[T any](ctx context.Context, k *rack, verb string, c driver.Call, do func(*register) (T, error)) (out T, err error) {
	deed := Deed{Dataset: c.Dataset.Key(), Verb: verb, Epoch: c.Epoch, Began: traffic.Monotonic()}
	defer func() {
		deed.Ended = traffic.Monotonic()
		if err != nil {
			deed.Error = err.Error()
		}
		k.mu.Lock()
		k.journal = append(k.journal, deed)
		k.mu.Unlock()
	}()
	work := time.NewTimer(k.takes)
	defer work.Stop()
	select {
	case <-work.C:
	case <-ctx.Done():
		return out, ctx.Err()
	}
	if c.Dataset.Parameters["refuses"] == verb {
		return out, fmt.Errorf("dataset %s: its copy in %s refuses to %s: take the parameter refuses away: %w", c.Dataset.Key(), c.Dataset.Cluster, verb, driver.ErrRefused)
	}
	r, err := k.at(c.Dataset)
	if err != nil {
		return out, err
	}
	return do(r)
}

// Identity implements driver.Driver.
func (*rack) Identity() driver.Identity { return relay{}.Identity() }

// Observe implements driver.Driver.
func (k *rack) Observe(ctx context.Context, d driver.Dataset) driver.Observation {
	r, err := k.at(d)
	if err != nil {
		return driver.Observation{Role: driver.RoleNone, State: driver.StateUnknown, Message: err.Error()}
	}
	return r.Observe(ctx, d)
}

// Promote implements driver.Driver.
func (k *rack) Promote(ctx context.Context, c driver.Call) (driver.Observation, error) {
	return change(ctx, k, "promote", c, func(r *register) (driver.Observation, error) { return r.Promote(ctx, c) })
}

// Demote implements driver.Driver.
func (k *rack) Demote(ctx context.Context, c driver.Call) (driver.Observation, error) {
	return change(ctx, k, "demote", c, func(r *register) (driver.Observation, error) { return r.Demote(ctx, c) })
}

// Fence implements driver.Driver.
func (k *rack) Fence(ctx context.Context, c driver.Call) (driver.Observation, error) {
	return change(ctx, k, "fence", c, func(r *register) (driver.Observation, error) { return r.Fence(ctx, c) })
}

// SetSyncSet implements driver.Driver.
func (k *rack) SetSyncSet(ctx context.Context, c driver.Call) (driver.Observation, error) {
	return change(ctx, k, "syncset", c, func(r *register) (driver.Observation, error) { return r.SetSyncSet(ctx, c) })
}

// Probe implements driver.Driver.
func (k *rack) Probe(ctx context.Context, c driver.Call) (driver.Probed, error) {
	return change(ctx, k, "probe", c, func(r *register) (driver.Probed, error) { return r.Probe(ctx, c) })
}

// Resync implements driver.Driver.
func (k *rack) Resync(ctx context.Context, c driver.Call, discard bool) (driver.Resynced, error) {
	return change(ctx, k, "resync", c, func(r *register) (driver.Resynced, error) { return r.Resync(ctx, c, discard) })
}

// routes tells what was done, in the order in which it ended: GET /journal.
func (k *rack) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /journal", func(w http.ResponseWriter, _ *http.Request) {
		k.mu.Lock()
		all := append([]Deed{}, k.journal...)
		k.mu.Unlock()
		_ = json.NewEncoder(w).Encode(all)
	})
	return mux
}
