// Package drivertest is what every driver must do, whatever it drives: a test that
// a driver's own tests run against the real software, in process or behind a
// socket.
package drivertest

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"tripod.dev/tripod/failover/driver"
)

// Rig is a dataset with one copy that nothing has happened to yet.
type Rig struct {
	Driver driver.Driver
	// Name that the driver must have.
	Name string
	// Dataset is the copy's; its cluster is the one that the driver acts in.
	Dataset driver.Dataset
	// Address is HOST:PORT where others reach the copy. A driver out of process must
	// give it: its stops are believed only if nobody listens there. Optional.
	Address string
	// Grant makes whoever enforces believe that the copy has, or has not, the
	// primary role at epoch, as the hub's grants would. Optional.
	Grant func(epoch int64, primary bool)
	// Lapse ends what the driver keeps in its process, as its death would; the
	// next call finds it again. Optional.
	Lapse func()
}

// Run takes one copy from its forming to its fence. The order matters: each part
// rests on what the one before has left.
func Run(ctx context.Context, t *testing.T, r Rig) {
	if r.Grant == nil {
		r.Grant = func(int64, bool) {}
	}
	if r.Lapse == nil {
		r.Lapse = func() {}
	}
	t.Run("it is who it is said to be", func(t *testing.T) {
		r.Driver.Observe(ctx, r.Dataset)
		if id := r.Driver.Identity(); id.Name != r.Name || id.Version == "" {
			t.Errorf("it calls itself %+v, want %s with a version", id, r.Name)
		}
	})
	t.Run("a promotion makes a primary that writes", r.promotes(ctx, 1, 11))
	t.Run("and once more changes nothing", r.promotes(ctx, 1, 11))
	r.Lapse()
	t.Run("and once more after the driver has died", r.promotes(ctx, 1, 11))
	t.Run("a fence stops it, and a probe finds nobody", r.fences(ctx, 2, 20))
	t.Run("and once more, after the driver has died", func(t *testing.T) { r.Lapse(); r.fences(ctx, 2, 20)(t) })
	t.Run("what is older is refused, for ever", r.refuses(ctx, 1, 11))
	t.Run("a later epoch opens it again", r.promotes(ctx, 3, 30))
	t.Run("a closed primary tells where its log ends", r.closes(ctx, 3, 31))
	t.Run("and only a later decision opens it", r.staysClosed(ctx, 3, 0))
	t.Run("which this is", r.promotes(ctx, 3, 32))
	t.Run("a replica of nobody is refused", func(t *testing.T) {
		call := r.call(3, 33)
		call.Primary, call.PrimaryAddress = "", ""
		if _, err := r.Driver.Resync(ctx, call, false); !errors.Is(err, driver.ErrRefused) {
			t.Errorf("got %v, want a refusal", err)
		}
	})
}

// patience is how long a call that failed is asked again, as the hub does.
const patience = 30 * time.Second

// again asks until the answer is final.
func again(ctx context.Context, call func() (driver.Observation, error)) (driver.Observation, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	pace := time.NewTicker(50 * time.Millisecond)
	defer pace.Stop()
	for {
		o, err := call()
		if err == nil || errors.Is(err, driver.ErrOlder) || errors.Is(err, driver.ErrRefused) {
			return o, err
		}
		select {
		case <-pace.C:
		case <-ctx.Done():
			return o, err
		}
	}
}

func (r Rig) call(epoch, revision int64) driver.Call {
	return driver.Call{Incarnation: 1, Epoch: epoch, Revision: revision, Dataset: r.Dataset, Primary: r.Dataset.Cluster, SyncSet: []string{r.Dataset.Cluster}}
}

func (r Rig) promotes(ctx context.Context, epoch, revision int64) func(*testing.T) {
	return func(t *testing.T) {
		r.Grant(epoch, true)
		o, err := again(ctx, func() (driver.Observation, error) { return r.Driver.Promote(ctx, r.call(epoch, revision)) })
		if err != nil {
			t.Fatal(err)
		}
		if o.Role != driver.RolePrimary || o.State != driver.StateRunning || o.Epoch != epoch {
			t.Errorf("it is %+v", o)
		}
		if p, err := r.Driver.Probe(ctx, r.call(epoch, 0)); err != nil || !p.Writable {
			t.Errorf("a write meets %+v %v", p, err)
		}
	}
}

func (r Rig) fences(ctx context.Context, epoch, revision int64) func(*testing.T) {
	return func(t *testing.T) {
		r.Grant(epoch, false)
		o, err := again(ctx, func() (driver.Observation, error) { return r.Driver.Fence(ctx, r.call(epoch, revision)) })
		if err != nil {
			t.Fatal(err)
		}
		if o.Role == driver.RolePrimary || o.State != driver.StateFenced {
			t.Errorf("it is %+v", o)
		}
		if p, err := r.Driver.Probe(ctx, r.call(epoch, 0)); err != nil || p.Writable || p.Listening {
			t.Errorf("a write meets %+v %v", p, err)
		}
		r.refusedFromOutside(ctx, t)
	}
}

// refusedFromOutside is the agent's own look at a copy that nobody of Tripod's guards.
func (r Rig) refusedFromOutside(ctx context.Context, t *testing.T) {
	t.Helper()
	if r.Address == "" {
		return
	}
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", r.Address)
	if err == nil {
		_ = conn.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("stopped, it meets a connection with %v: it must be refused", err)
	}
}

func (r Rig) refuses(ctx context.Context, epoch, revision int64) func(*testing.T) {
	return func(t *testing.T) {
		call := r.call(epoch, revision)
		_, promoted := r.Driver.Promote(ctx, call)
		_, demoted := r.Driver.Demote(ctx, call)
		_, fenced := r.Driver.Fence(ctx, call)
		_, set := r.Driver.SetSyncSet(ctx, call)
		_, probed := r.Driver.Probe(ctx, call)
		for name, err := range map[string]error{"Promote": promoted, "Demote": demoted, "Fence": fenced, "SetSyncSet": set, "Probe": probed} {
			if !errors.Is(err, driver.ErrOlder) {
				t.Errorf("%s of an older epoch: %v", name, err)
			}
		}
	}
}

func (r Rig) closes(ctx context.Context, epoch, revision int64) func(*testing.T) {
	return func(t *testing.T) {
		o, err := again(ctx, func() (driver.Observation, error) { return r.Driver.Demote(ctx, r.call(epoch, revision)) })
		if err != nil {
			t.Fatal(err)
		}
		if o.State != driver.StateClosed || o.Position.Bytes <= 0 {
			t.Errorf("it is %+v", o)
		}
		r.refusedFromOutside(ctx, t)
	}
}

func (r Rig) staysClosed(ctx context.Context, epoch, revision int64) func(*testing.T) {
	return func(t *testing.T) {
		if _, err := r.Driver.Promote(ctx, r.call(epoch, revision)); !errors.Is(err, driver.ErrRefused) {
			t.Errorf("what has no decision opens it: %v", err)
		}
	}
}
