package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"tripod.dev/tripod/failover/driver"
)

// order and reply are what goes over the control port: POST /VERB.
type order struct {
	Call    driver.Call
	Discard bool
}

type reply struct {
	Observation driver.Observation
	Probed      driver.Probed
	Resynced    driver.Resynced
	Diverged    *driver.Diverged
	// Error, and whether it is one of the contract's.
	Error          string
	Older, Refused bool
}

func (r *register) routes() http.Handler {
	mux := http.NewServeMux()
	observation := func(do func(context.Context, driver.Call) (driver.Observation, error)) func(context.Context, order) (reply, error) {
		return func(ctx context.Context, o order) (reply, error) {
			seen, err := do(ctx, o.Call)
			return reply{Observation: seen}, err
		}
	}
	for verb, do := range map[string]func(context.Context, order) (reply, error){
		"observe": func(ctx context.Context, o order) (reply, error) {
			return reply{Observation: r.Observe(ctx, o.Call.Dataset)}, nil
		},
		"promote": observation(r.Promote), "demote": observation(r.Demote), "fence": observation(r.Fence), "syncset": observation(r.SetSyncSet),
		"probe": func(ctx context.Context, o order) (reply, error) {
			p, err := r.Probe(ctx, o.Call)
			return reply{Probed: p}, err
		},
		"resync": func(ctx context.Context, o order) (reply, error) {
			done, err := r.Resync(ctx, o.Call, o.Discard)
			return reply{Resynced: done}, err
		},
	} {
		mux.HandleFunc("POST /"+verb, func(w http.ResponseWriter, req *http.Request) { handle(w, req, do) })
	}
	// What somebody who breaks the API does: POST /lie?fence=true.
	mux.HandleFunc("POST /lie", func(w http.ResponseWriter, req *http.Request) {
		lies, err := strconv.ParseBool(req.URL.Query().Get("fence"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.mu.Lock()
		r.lying = lies
		r.mu.Unlock()
	})
	return mux
}

func handle(w http.ResponseWriter, req *http.Request, do func(context.Context, order) (reply, error)) {
	var o order
	if err := json.NewDecoder(req.Body).Decode(&o); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	out, err := do(req.Context(), o)
	if err != nil {
		out.Error, out.Older, out.Refused = err.Error(), errors.Is(err, driver.ErrOlder), errors.Is(err, driver.ErrRefused)
		errors.As(err, &out.Diverged)
	}
	_ = json.NewEncoder(w).Encode(out)
}

// relay is the driver beside the agent. It keeps nothing: what it is told reaches the
// copy at HOST:PORT of the parameter `control`, or nobody.
type relay struct{}

var _ driver.Driver = relay{}

func (relay) ask(ctx context.Context, verb string, o order) (reply, error) {
	address := o.Call.Dataset.Parameters["control"]
	if address == "" {
		return reply{}, fmt.Errorf("dataset %s: give its member of cluster %s the parameter control, HOST:PORT of the copy's control port: %w",
			o.Call.Dataset.Key(), o.Call.Dataset.Cluster, driver.ErrRefused)
	}
	body, err := json.Marshal(o)
	if err != nil {
		return reply{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/"+verb, bytes.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer res.Body.Close()
	var out reply
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		return reply{}, fmt.Errorf("%s answered %s: %w", address, res.Status, err)
	}
	switch {
	case out.Diverged != nil:
		return out, out.Diverged
	case out.Older:
		return out, fmt.Errorf("%s: %w", out.Error, driver.ErrOlder)
	case out.Refused:
		return out, fmt.Errorf("%s: %w", out.Error, driver.ErrRefused)
	case out.Error != "":
		return out, errors.New(out.Error)
	}
	return out, nil
}

// Identity implements driver.Driver.
func (relay) Identity() driver.Identity { return driver.Identity{Name: "register", Version: "1"} }

// Observe implements driver.Driver.
func (r relay) Observe(ctx context.Context, d driver.Dataset) driver.Observation {
	out, err := r.ask(ctx, "observe", order{Call: driver.Call{Dataset: d}})
	if err != nil {
		return driver.Observation{Role: driver.RoleNone, State: driver.StateUnknown, Message: err.Error()}
	}
	return out.Observation
}

func (r relay) change(ctx context.Context, verb string, c driver.Call) (driver.Observation, error) {
	out, err := r.ask(ctx, verb, order{Call: c})
	return out.Observation, err
}

// Promote implements driver.Driver.
func (r relay) Promote(ctx context.Context, c driver.Call) (driver.Observation, error) {
	return r.change(ctx, "promote", c)
}

// Demote implements driver.Driver.
func (r relay) Demote(ctx context.Context, c driver.Call) (driver.Observation, error) {
	return r.change(ctx, "demote", c)
}

// Fence implements driver.Driver.
func (r relay) Fence(ctx context.Context, c driver.Call) (driver.Observation, error) {
	return r.change(ctx, "fence", c)
}

// SetSyncSet implements driver.Driver.
func (r relay) SetSyncSet(ctx context.Context, c driver.Call) (driver.Observation, error) {
	return r.change(ctx, "syncset", c)
}

// Probe implements driver.Driver.
func (r relay) Probe(ctx context.Context, c driver.Call) (driver.Probed, error) {
	out, err := r.ask(ctx, "probe", order{Call: c})
	return out.Probed, err
}

// Resync implements driver.Driver.
func (r relay) Resync(ctx context.Context, c driver.Call, discard bool) (driver.Resynced, error) {
	out, err := r.ask(ctx, "resync", order{Call: c, Discard: discard})
	return out.Resynced, err
}
