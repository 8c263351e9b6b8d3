// Package machine is the power, the disk and the first process of one center of a
// lab: a set of Linux namespaces (mount, process, host name, IPC, network) whose
// PID 1 is this package's Run. When that process is killed the kernel takes
// everything else in the center with it, mounts included, which is what a power
// cut does.
//
// Inside a machine the usual paths are the center's own: /var/lib, /var/log and
// /tmp are folders of its disk, /run is empty at every boot.
package machine

import (
	"context"
	"fmt"
	"net"
	"net/rpc"
	"time"
)

// Layout says which host folders a machine sees, and by which name. All paths are
// absolute host paths that exist when the machine boots.
type Layout struct {
	// Hostname is the machine's host name.
	Hostname string `json:"hostname"`
	// Lib, Log and Tmp become /var/lib, /var/log and /tmp.
	Lib string `json:"lib"`
	Log string `json:"log"`
	Tmp string `json:"tmp"`
	// Programs becomes BinDir.
	Programs string `json:"programs"`
}

// BinDir is where a machine sees the lab's programs.
const BinDir = "/run/tripod/bin"

// Process is a program to start in a machine. Its output is appended to
// /var/log/NAME.log.
type Process struct {
	Name string
	Argv []string
	Env  []string
	// Nice is the process's priority, -20 to 19; lower is more.
	Nice int
}

// Status is what PID 1 knows of a process it started.
type Status struct {
	Process
	// PID is the number inside the machine, not on the host.
	PID     int
	Running bool
	// Exit describes how the process ended; empty while it runs.
	Exit      string
	StartedAt time.Time
}

// Client talks to a machine's PID 1. It may be used concurrently.
type Client struct {
	conn *rpc.Client
}

// Dial connects to the machine that listens on the Unix socket path. An error
// means that no machine is running there.
func Dial(ctx context.Context, path string) (*Client, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("dial machine: %w", err)
	}
	return &Client{conn: rpc.NewClient(conn)}, nil
}

// Close ends the connection; the machine goes on.
func (c *Client) Close() error { return c.conn.Close() }

// Start starts p. It is an error if a process of that name is running.
func (c *Client) Start(ctx context.Context, p Process) error {
	var status Status
	return c.call(ctx, "Machine.Start", p, &status)
}

// List returns the processes started since boot: the newest one of each name.
func (c *Client) List(ctx context.Context) (map[string]Status, error) {
	processes := map[string]Status{}
	err := c.call(ctx, "Machine.List", struct{}{}, &processes)
	return processes, err
}

func (c *Client) call(ctx context.Context, method string, request, reply any) error {
	call := c.conn.Go(method, request, reply, make(chan *rpc.Call, 1))
	select {
	case <-call.Done:
		if call.Error != nil {
			return fmt.Errorf("call %s: %w", method, call.Error)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
