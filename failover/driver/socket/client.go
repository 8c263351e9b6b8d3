// Package socket is the contract of drivers out of process: tripod.driver.v1 over a
// Unix socket in the agent's pod, as CSI drivers are. Client is the agent's end and
// a driver.Driver like those that are built in; Register is the other end.
package socket

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"tripod.dev/tripod/failover/driver"
	driverv1 "tripod.dev/tripod/proto/driver/v1"
)

// Protocol is the version of the contract that this build speaks.
const Protocol = 1

// Client is a driver behind a socket. It connects when it is used, and again when
// the driver's process was replaced; with each connection it asks who is there
// before it asks for anything else. It never repeats a call by itself: a driver
// that died in the middle of one has failed it, and whoever decided the call asks
// again (calls are idempotent).
type Client struct {
	name  string
	conn  *grpc.ClientConn
	calls driverv1.DriverClient
	dials atomic.Int64 // connections made
	// plain is the connection on which the driver has said that it observes datasets one
	// by one only; 0 if none.
	plain atomic.Int64

	mu       sync.Mutex
	checked  int64 // the connection on which the driver has said who it is
	identity driver.Identity
}

var (
	_ driver.Driver       = (*Client)(nil)
	_ driver.ManyObserver = (*Client)(nil)
)

// New returns the driver that listens at path and calls itself name. It connects
// to nothing yet.
func New(name, path string) (*Client, error) {
	if name == "" || !filepath.IsAbs(path) {
		return nil, fmt.Errorf("driver %q at socket %q: give a name and an absolute path", name, path)
	}
	c := &Client{name: name, identity: driver.Identity{Name: name, Unfenced: true}}
	conn, err := grpc.NewClient("passthrough:///"+path, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, path string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
			if err != nil {
				return nil, err
			}
			return numbered{conn, number(c.dials.Add(1))}, nil
		}),
		grpc.WithIdleTimeout(0), grpc.WithDisableRetry(),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second,
			Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 2, Jitter: 0.2, MaxDelay: 2 * time.Second}}))
	if err != nil {
		return nil, fmt.Errorf("driver %s: %w", name, err)
	}
	c.conn, c.calls = conn, driverv1.NewDriverClient(conn)
	return c, nil
}

// numbered is a connection that tells which it is by its address: all go to one path.
type numbered struct {
	net.Conn
	number number
}

// RemoteAddr implements net.Conn.
func (n numbered) RemoteAddr() net.Addr { return n.number }

type number int64

// Network implements net.Addr.
func (number) Network() string { return "unix" }

// String implements net.Addr.
func (n number) String() string { return fmt.Sprintf("connection %d", int64(n)) }

// Close ends the connection.
func (c *Client) Close() { _ = c.conn.Close() }

// Identity is what the driver last said; only its name before that.
func (c *Client) Identity() driver.Identity {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.identity
}

// Check asks who is behind the socket, unless that was asked on this connection,
// and refuses another name or another version of the contract.
func (c *Client) Check(ctx context.Context) error {
	c.mu.Lock()
	checked := c.checked != 0 && c.checked == c.dials.Load() && c.conn.GetState() == connectivity.Ready
	c.mu.Unlock()
	if checked {
		return nil
	}
	var who peer.Peer
	said, err := c.calls.Identity(ctx, &driverv1.IdentityRequest{}, grpc.Peer(&who))
	if err != nil {
		return fromStatus(c.name, err)
	}
	switch {
	case said.GetProtocol() != Protocol:
		return fmt.Errorf("driver %s speaks version %d of tripod.driver.v1, this agent %d: install a version that fits", c.name, said.GetProtocol(), Protocol)
	case said.GetName() != c.name:
		return fmt.Errorf("driver %s: what listens at its socket calls itself %q: correct the agent's --drivers", c.name, said.GetName())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if connection, ok := who.Addr.(number); ok {
		c.checked = int64(connection)
	}
	c.identity = driver.Identity{Name: said.GetName(), Version: said.GetVersion(), ZeroLoss: said.GetZeroLoss(), Unfenced: true}
	return nil
}

// Observe says of a driver that does not answer that nothing is known.
func (c *Client) Observe(ctx context.Context, d driver.Dataset) driver.Observation {
	err := c.Check(ctx)
	if err == nil {
		o, answer := c.calls.Observe(ctx, &driverv1.ObserveRequest{Dataset: toDataset(d)})
		if err = fromStatus(c.name, answer); err == nil {
			return unfenced(fromObservation(o))
		}
	}
	return unknown(err)
}

func unknown(err error) driver.Observation {
	return driver.Observation{Role: driver.RoleNone, State: driver.StateUnknown, Message: err.Error()}
}

// ObserveMany implements driver.ManyObserver.
func (c *Client) ObserveMany(ctx context.Context, datasets []driver.Dataset) []*driver.Observation {
	all := make([]*driver.Observation, len(datasets))
	if plain := c.plain.Load(); plain != 0 && plain == c.dials.Load() {
		return all
	}
	observed, err := c.observeMany(ctx, datasets)
	for i := range all {
		switch {
		case err != nil:
			all[i] = new(unknown(err))
		case i < len(observed) && observed[i].GetObservation() != nil:
			all[i] = new(unfenced(fromObservation(observed[i].GetObservation())))
		}
	}
	return all
}

// observeMany returns what the driver answers: nothing, if it has no such call.
func (c *Client) observeMany(ctx context.Context, datasets []driver.Dataset) ([]*driverv1.ObserveManyResponse_Observed, error) {
	if err := c.Check(ctx); err != nil {
		return nil, err
	}
	request := &driverv1.ObserveManyRequest{}
	for _, d := range datasets {
		request.Datasets = append(request.Datasets, toDataset(d))
	}
	connection := c.dials.Load()
	response, err := c.calls.ObserveMany(ctx, request)
	if status.Code(err) == codes.Unimplemented {
		c.plain.Store(connection)
		return nil, nil
	}
	return response.GetObserved(), fromStatus(c.name, err)
}

type method func(context.Context, *driverv1.Call, ...grpc.CallOption) (*driverv1.Observation, error)

func (c *Client) change(ctx context.Context, do method, call driver.Call) (driver.Observation, error) {
	if err := c.Check(ctx); err != nil {
		return driver.Observation{}, err
	}
	o, err := do(ctx, toCall(call))
	if err != nil {
		return driver.Observation{}, fromStatus(c.name, err)
	}
	return unfenced(fromObservation(o)), nil
}

// unfenced is what is believed of a driver out of process: version 1 of the contract
// hands it no proof that runs out, so nothing of it stops by time, whatever it says.
// Were it believed, the hub would take elapsed time for a stop and promote another
// copy beside one that goes on writing.
func unfenced(o driver.Observation) driver.Observation {
	o.Guarded, o.GuardKnown = false, true
	return o
}

// Promote implements driver.Driver.
func (c *Client) Promote(ctx context.Context, call driver.Call) (driver.Observation, error) {
	return c.change(ctx, c.calls.Promote, call)
}

// Demote implements driver.Driver.
func (c *Client) Demote(ctx context.Context, call driver.Call) (driver.Observation, error) {
	return c.change(ctx, c.calls.Demote, call)
}

// Fence implements driver.Driver.
func (c *Client) Fence(ctx context.Context, call driver.Call) (driver.Observation, error) {
	return c.change(ctx, c.calls.Fence, call)
}

// SetSyncSet implements driver.Driver.
func (c *Client) SetSyncSet(ctx context.Context, call driver.Call) (driver.Observation, error) {
	return c.change(ctx, c.calls.SetSyncSet, call)
}

// Probe implements driver.Driver.
func (c *Client) Probe(ctx context.Context, call driver.Call) (driver.Probed, error) {
	if err := c.Check(ctx); err != nil {
		return driver.Probed{}, err
	}
	p, err := c.calls.Probe(ctx, toCall(call))
	if err != nil {
		return driver.Probed{}, fromStatus(c.name, err)
	}
	return driver.Probed{Writable: p.GetWritable(), Listening: p.GetListening(), Message: p.GetMessage()}, nil
}

// Resync implements driver.Driver.
func (c *Client) Resync(ctx context.Context, call driver.Call, discard bool) (driver.Resynced, error) {
	if err := c.Check(ctx); err != nil {
		return driver.Resynced{}, err
	}
	r, err := c.calls.Resync(ctx, &driverv1.ResyncRequest{Call: toCall(call), Discard: discard})
	if err != nil {
		return driver.Resynced{}, fromStatus(c.name, err)
	}
	done := driver.Resynced{Method: driver.Method(r.GetMethod()), Divergence: fromDivergence(r.GetDivergence()), Observation: unfenced(fromObservation(r.GetObservation()))}
	if r.GetDiverged() != "" {
		return done, &driver.Diverged{Dataset: call.Dataset.Key(), Divergence: done.Divergence, Reason: r.GetDiverged()}
	}
	return done, nil
}
