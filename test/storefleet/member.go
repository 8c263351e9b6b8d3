package storefleet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Member is one process; it can be killed and started again on its data.
type Member struct {
	// Folder holds its data and its log.
	Folder string

	fleet        *Fleet
	index        int
	name         string
	client, peer int // ports
	// plain is where etcd answers what is not gRPC.
	plain   int
	process *exec.Cmd
	exited  chan struct{}
	asked   *clientv3.Client
}

// URL is where clients reach the member.
func (m *Member) URL() string { return "https://127.0.0.1:" + strconv.Itoa(m.client) }

func (m *Member) peerURL() string { return "https://127.0.0.1:" + strconv.Itoa(m.peer) }

// Name is the member's name.
func (m *Member) Name() string { return m.name }

// Addresses are where the other members reach it: for Raft and for the rest.
func (m *Member) Addresses() (raft, peer string) {
	return strings.TrimPrefix(m.peerURL(), "https://"), strings.TrimPrefix(m.URL(), "https://")
}

// Running says whether the process was started and has not ended.
func (m *Member) Running() bool {
	if m.process == nil {
		return false
	}
	select {
	case <-m.exited:
		return false
	default:
		return true
	}
}

// Ended says whether the process has ended without having been killed by Kill.
func (m *Member) Ended() bool { return m.process != nil && !m.Running() }

// Exited is closed when the process has ended, by itself or not.
func (m *Member) Exited() <-chan struct{} { return m.exited }

// Signal sends a signal to the process.
func (m *Member) Signal(s syscall.Signal) error {
	if err := m.process.Process.Signal(s); err != nil {
		return fmt.Errorf("send %s to %s: %w", s, m.name, err)
	}
	return nil
}

// Start runs the process; see AwaitReady.
func (m *Member) Start() error {
	if err := os.MkdirAll(m.Folder, 0o700); err != nil {
		return fmt.Errorf("make the folder of %s: %w", m.name, err)
	}
	program, arguments, err := m.fleet.Kind.command(m.fleet, m.index)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(m.Folder, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", m.name, err)
	}
	defer func() { _ = log.Close() }() // the process has its own
	if _, err := os.Stat(m.wallFile()); err != nil {
		if err := m.MoveWall(0); err != nil {
			return err
		}
	}
	process := exec.Command(program, arguments...)
	process.Stdout, process.Stderr = log, log
	process.Env = append(os.Environ(), wallVariable+"="+m.wallFile())
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := process.Start(); err != nil {
		return fmt.Errorf("start %s: %w", m.name, err)
	}
	m.process, m.exited = process, make(chan struct{})
	go func() {
		_ = process.Wait() // how it ended is in its log
		close(m.exited)
	}()
	return nil
}

// Kill ends the process with SIGKILL, if it has not ended, and returns when it is
// gone.
func (m *Member) Kill() error {
	if m.process == nil {
		return nil
	}
	if m.asked != nil {
		_ = m.asked.Close()
		m.asked = nil
	}
	err := m.process.Process.Kill()
	<-m.exited
	m.process = nil
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", m.name, err)
	}
	return nil
}

// AwaitReady waits until the member answers a linearizable read.
func (m *Member) AwaitReady(ctx context.Context) error {
	if err := poll(ctx, m.Serves); err != nil {
		return fmt.Errorf("%s of %s is not ready, see its log in %s: %w", m.name, m.fleet.Kind.Name(), m.Folder, err)
	}
	return nil
}

// Serves asks the member for a linearizable read.
func (m *Member) Serves(ctx context.Context) error {
	c, err := m.connection()
	if err != nil {
		return err
	}
	_, err = c.Get(ctx, "ready")
	return err
}

func (m *Member) connection() (*clientv3.Client, error) {
	if m.asked == nil {
		c, err := m.fleet.Client(m)
		if err != nil {
			return nil, err
		}
		m.asked = c
	}
	return m.asked, nil
}

// Status is what the member says of itself.
func (m *Member) Status(ctx context.Context) (*clientv3.StatusResponse, error) {
	c, err := m.connection()
	if err != nil {
		return nil, err
	}
	status, err := c.Status(ctx, m.URL())
	if err != nil {
		return nil, fmt.Errorf("ask %s for its status: %w", m.name, err)
	}
	return status, nil
}

func (m *Member) leads(ctx context.Context) (bool, error) {
	status, err := m.Status(ctx)
	if err != nil {
		return false, err
	}
	return status.Leader != 0 && status.Leader == status.Header.MemberId, nil
}

// Connections opens n connections to the member.
func (m *Member) Connections(ctx context.Context, n int) (open []*clientv3.Client, err error) {
	for range n {
		c, err := m.fleet.Client(m)
		if err == nil {
			open = append(open, c)
			err = connected(ctx, c)
		}
		if err != nil {
			for _, c := range open {
				_ = c.Close()
			}
			return nil, err
		}
	}
	return open, nil
}

// Memory is the resident memory of the process in bytes, what it has mapped of its
// database included.
func (m *Member) Memory() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.process.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("read the memory of %s: %w", m.name, err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("the kernel does not tell the memory of %s", m.name)
}
