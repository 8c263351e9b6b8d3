package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"tripod.dev/tripod/failover/driver"
)

// register is one copy. It is a driver.Driver of itself: the relay beside the agent
// only carries the calls here. Nobody guards it: what stops it is its own obedience.
type register struct {
	address string        // of the data port
	beat    time.Duration // how often a copy that follows hears from this one

	mu    sync.Mutex
	store *store
	kept  kept
	lines []string
	// lying: a fence is answered and not done.
	lying bool
	// closing: no write is begun any more.
	closing   bool
	port      *port
	following *following
	followers map[string]int // how many lines each copy that follows has
	changed   chan struct{}  // closed at each change
}

var _ driver.Driver = (*register)(nil)

func open(dir, address string, beat time.Duration) (*register, error) {
	s, k, lines, err := openStore(dir)
	if err != nil {
		return nil, err
	}
	r := &register{address: address, beat: beat, store: s, kept: k, lines: lines, followers: map[string]int{}, changed: make(chan struct{})}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r, r.beLocked(k.Mode)
}

func (r *register) close() {
	r.mu.Lock()
	_ = r.beLocked(stopped)
	r.mu.Unlock()
	_ = r.store.close()
}

func (r *register) notifyLocked() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// beLocked makes what runs fit m: the data port is open for a primary and a replica, and
// closed, with every session, for everything else.
func (r *register) beLocked(m mode) error {
	defer r.notifyLocked()
	r.closing = false
	if r.following != nil && (m != replica || r.following.address != r.kept.Follows) {
		r.following.end()
		r.following = nil
	}
	if r.port != nil && m != primary && m != replica {
		r.port.end()
		r.port = nil
		clear(r.followers)
	}
	if r.port == nil && (m == primary || m == replica) {
		port, err := listen(r.address, r)
		if err != nil {
			return err
		}
		r.port = port
	}
	if m == replica && r.following == nil {
		r.following = follow(r, r.kept.Follows)
	}
	return nil
}

// enterLocked remembers first: a copy that is started again is what it was last told.
func (r *register) enterLocked(k kept) error {
	if err := r.store.keep(k); err != nil {
		return err
	}
	r.kept = k
	return r.beLocked(k.Mode)
}

// admitLocked refuses what is older than the copy has seen, and returns what it is to
// remember of the rest.
func (r *register) admitLocked(c driver.Call) (kept, error) {
	k := r.kept
	older := c.Incarnation < k.Incarnation || c.Epoch < k.Epoch || c.Epoch == k.Epoch && c.Revision != 0 && c.Revision < k.Revision
	if older {
		return k, fmt.Errorf("incarnation %d epoch %d revision %d, seen %d, %d and %d: %w", c.Incarnation, c.Epoch, c.Revision, k.Incarnation, k.Epoch, k.Revision, driver.ErrOlder)
	}
	if c.Epoch > k.Epoch {
		k.Revision, k.Closed = 0, 0
		if k.Mode == closed {
			k.Mode = fenced
		}
	}
	k.Cluster = c.Dataset.Cluster
	k.Incarnation, k.Epoch, k.Revision = c.Incarnation, c.Epoch, max(k.Revision, c.Revision)
	return k, nil
}

// Identity implements driver.Driver.
func (r *register) Identity() driver.Identity { return driver.Identity{Name: "register", Version: "1"} }

// Observe implements driver.Driver.
func (r *register) Observe(_ context.Context, d driver.Dataset) driver.Observation {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.observeLocked(d)
}

func (r *register) observeLocked(d driver.Dataset) driver.Observation {
	k := r.kept
	o := driver.Observation{Role: driver.RoleNone, State: driver.StateStopped, Epoch: k.Epoch, HeldEpoch: k.HeldEpoch, HeldSyncSet: k.SyncSet, Copy: driver.CopyWhole,
		Position: driver.Position{Text: fmt.Sprintf("line %d", len(r.lines)), Bytes: int64(len(r.lines)), Timeline: k.Timeline}}
	switch k.Mode {
	case primary:
		o.Role, o.State, o.Acknowledges = driver.RolePrimary, driver.StateRunning, k.SyncSet
		for name, has := range r.followers {
			o.Streaming = append(o.Streaming, name)
			if len(r.lines)-has <= nearly {
				o.CaughtUp = append(o.CaughtUp, name)
			}
		}
		slices.Sort(o.Streaming)
		slices.Sort(o.CaughtUp)
	case replica:
		o.Role = driver.RoleReplica
		head, state := r.following.progress()
		behind := max(0, int64(head-len(r.lines)))
		if o.State = state; state == driver.StateStreaming {
			o.LagBytes, o.LagSeconds = &behind, new(int64)
		}
	case fenced:
		o.State = driver.StateFenced
	case closed:
		o.State = driver.StateClosed
	case stopped:
		if len(r.lines) == 0 {
			o.Copy = driver.CopyEmpty
		}
	}
	return o
}

// nearly caught up is a copy that lacks no more lines than this.
const nearly = 3

// Promote implements driver.Driver.
func (r *register) Promote(_ context.Context, c driver.Call) (driver.Observation, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k, err := r.admitLocked(c)
	if err == nil && k.Mode == closed && c.Revision <= k.Closed {
		err = fmt.Errorf("closed at revision %d, only a later decision opens it: %w", k.Closed, driver.ErrRefused)
	}
	if err != nil {
		return driver.Observation{}, err
	}
	k.SyncSet = others(c)
	if k.Mode != primary || k.HeldEpoch != c.Epoch {
		if err := r.writeLocked(fmt.Sprintf("promoted %d %s", c.Epoch, c.Dataset.Cluster)); err != nil {
			return driver.Observation{}, err
		}
		if k.HeldEpoch != c.Epoch {
			k.Timeline = c.Epoch
		}
	}
	k.Mode, k.HeldEpoch, k.Closed, k.Follows = primary, c.Epoch, 0, ""
	err = r.enterLocked(k)
	return r.observeLocked(c.Dataset), err
}

// others are the copies that a write waits for.
func others(c driver.Call) []string {
	all := slices.DeleteFunc(slices.Clone(c.SyncSet), func(name string) bool { return name == c.Dataset.Cluster })
	slices.Sort(all)
	return all
}

func (r *register) writeLocked(line string) error {
	if err := r.store.append(line); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	r.lines = append(r.lines, line)
	r.notifyLocked()
	return nil
}

// Demote implements driver.Driver.
func (r *register) Demote(ctx context.Context, c driver.Call) (driver.Observation, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k, err := r.admitLocked(c)
	switch {
	case err != nil:
		return driver.Observation{}, err
	case k.Mode == closed:
		return r.observeLocked(c.Dataset), nil
	case k.Mode != primary:
		return driver.Observation{}, fmt.Errorf("only a primary is closed, this is %q: %w", k.Mode, driver.ErrRefused)
	}
	r.closing = true
	streaming := r.observeLocked(c.Dataset).Streaming
	if err := r.awaitLocked(ctx, func() []string { return streaming }, len(r.lines)); err != nil {
		r.closing = false
		return driver.Observation{}, fmt.Errorf("not every copy that follows has everything: %w", err)
	}
	k.Mode, k.Closed = closed, c.Revision
	err = r.enterLocked(k)
	return r.observeLocked(c.Dataset), err
}

// awaitLocked waits until each of the copies that are asked for has n lines. It gives
// the lock away meanwhile.
func (r *register) awaitLocked(ctx context.Context, copies func() []string, n int) error {
	for {
		missing := slices.ContainsFunc(copies(), func(name string) bool { return r.followers[name] < n })
		if !missing {
			return nil
		}
		changed := r.changed
		r.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		r.mu.Lock()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// Fence implements driver.Driver. While it lies it says what it would say, and does
// nothing.
func (r *register) Fence(_ context.Context, c driver.Call) (driver.Observation, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lying {
		return driver.Observation{Role: driver.RoleNone, State: driver.StateFenced, Epoch: c.Epoch}, nil
	}
	k, err := r.admitLocked(c)
	if err != nil {
		return driver.Observation{}, err
	}
	k.Mode = fenced
	err = r.enterLocked(k)
	return r.observeLocked(c.Dataset), err
}

// Probe implements driver.Driver.
func (r *register) Probe(_ context.Context, c driver.Call) (driver.Probed, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := r.admitLocked(c); err != nil {
		return driver.Probed{}, err
	}
	p := driver.Probed{Listening: r.port != nil, Message: "this copy is " + string(r.kept.Mode)}
	if r.kept.Mode == primary && !r.closing {
		if err := r.writeLocked("probe"); err != nil {
			p.Message = err.Error()
			return p, nil
		}
		p.Writable = true
	}
	return p, nil
}

// SetSyncSet implements driver.Driver.
func (r *register) SetSyncSet(ctx context.Context, c driver.Call) (driver.Observation, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k, err := r.admitLocked(c)
	switch {
	case err != nil:
		return driver.Observation{}, err
	case k.Mode != primary:
		return driver.Observation{}, fmt.Errorf("only a primary waits for others, this is %q: %w", k.Mode, driver.ErrRefused)
	}
	before := k.SyncSet
	k.SyncSet = others(c)
	if err := r.enterLocked(k); err != nil {
		return driver.Observation{}, err
	}
	// From here on writes wait for them; what came before must be there, too.
	if err := r.awaitLocked(ctx, func() []string { return others(c) }, len(r.lines)); err != nil {
		if k = r.kept; k.Mode == primary && k.Epoch == c.Epoch {
			k.SyncSet = before
			_ = r.enterLocked(k)
		}
		return driver.Observation{}, fmt.Errorf("wait for %s: %w", strings.Join(others(c), ", "), err)
	}
	return r.observeLocked(c.Dataset), nil
}

// Resync implements driver.Driver.
func (r *register) Resync(ctx context.Context, c driver.Call, discard bool) (driver.Resynced, error) {
	if c.Primary == "" || c.PrimaryAddress == "" || c.Primary == c.Dataset.Cluster {
		return driver.Resynced{}, fmt.Errorf("follow %q at %q: %w", c.Primary, c.PrimaryAddress, driver.ErrRefused)
	}
	theirs, err := read(ctx, c.PrimaryAddress)
	if err != nil {
		return driver.Resynced{}, fmt.Errorf("ask %s what it holds: %w", c.Primary, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	k, err := r.admitLocked(c)
	switch {
	case err != nil:
		return driver.Resynced{}, err
	case k.Mode == primary && k.HeldEpoch == c.Epoch:
		return driver.Resynced{}, fmt.Errorf("this is the primary of epoch %d: %w", c.Epoch, driver.ErrRefused)
	}
	out := driver.Resynced{Method: driver.MethodAttach}
	same := 0
	for same < len(r.lines) && same < len(theirs) && r.lines[same] == theirs[same] {
		same++
	}
	if tail := len(r.lines) - same; tail > 0 {
		out.Method = driver.MethodRewind
		out.Divergence = driver.Divergence{Measured: true, Fork: fmt.Sprintf("line %d", same), Bytes: int64(tail), Commits: int64(tail)}
		// What it waited for the primary with, and that lacks, was acknowledged to nobody.
		if !discard && !slices.Contains(k.SyncSet, c.Primary) {
			out.Observation = r.observeLocked(c.Dataset)
			return out, &driver.Diverged{Dataset: c.Dataset.Key(), Divergence: out.Divergence, Reason: "they may have been acknowledged"}
		}
		if err := r.store.cut(r.lines, same); err != nil {
			return driver.Resynced{}, err
		}
		r.lines = r.lines[:same]
	}
	k.Mode, k.Follows, k.SyncSet, k.HeldEpoch = replica, c.PrimaryAddress, nil, 0
	err = r.enterLocked(k)
	out.Observation = r.observeLocked(c.Dataset)
	return out, err
}
