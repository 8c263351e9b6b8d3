package machine

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/rpc"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// File descriptors that Run inherits from the lab: the control socket, already
// listening, and a pipe on which the lab sends the Layout once the machine's
// cgroups and network are ready. A pipe that closes empty means the lab died.
const (
	controlFD = 3
	gateFD    = 4
)

// Run is PID 1 of a machine. It returns only with an error: a machine is not shut
// down, its power is cut (SIGKILL to this process).
func Run() error {
	if os.Getpid() != 1 {
		return fmt.Errorf("machine: must be PID 1 of a new process namespace, is %d; only the lab starts it", os.Getpid())
	}
	// A terminal's interrupt is for the lab, not for the center.
	signal.Ignore(unix.SIGINT, unix.SIGHUP, unix.SIGTERM)
	control, err := net.FileListener(os.NewFile(controlFD, "control"))
	if err != nil {
		return fmt.Errorf("open control socket: %w", err)
	}
	layout, err := waitGate(os.NewFile(gateFD, "gate"))
	if err != nil {
		return err
	}
	if err := mountAll(layout); err != nil {
		return err
	}
	if err := prepareKernel(layout); err != nil {
		return err
	}
	processes := newProcesses()
	server := rpc.NewServer()
	if err := server.RegisterName("Machine", processes); err != nil {
		return fmt.Errorf("register control: %w", err)
	}
	go processes.reap()
	for {
		conn, err := control.Accept()
		if err != nil {
			return fmt.Errorf("accept control connection: %w", err)
		}
		go server.ServeConn(conn)
	}
}

func waitGate(gate io.ReadCloser) (Layout, error) {
	defer gate.Close()
	var layout Layout
	if err := json.NewDecoder(gate).Decode(&layout); err != nil {
		return layout, fmt.Errorf("wait for the lab to connect the machine: %w", err)
	}
	return layout, nil
}

// mountAll gives the machine its own view of the file system. /var/lib comes last
// because the lab's own folders usually lie below it.
func mountAll(layout Layout) error {
	steps := []struct {
		source, target, kind string
		flags                uintptr
		data                 string
	}{
		{"", "/", "", unix.MS_REC | unix.MS_PRIVATE, ""},
		// The kubelet's mount propagation needs shared mounts; the peers are this namespace's alone.
		{"", "/", "", unix.MS_REC | unix.MS_SHARED, ""},
		{"proc", "/proc", "proc", 0, ""},
		{"tmpfs", "/run", "tmpfs", 0, "mode=755"},
		{layout.Programs, BinDir, "", unix.MS_BIND, ""},
		{layout.Log, "/var/log", "", unix.MS_BIND, ""},
		{layout.Lib, "/run/lib", "", unix.MS_BIND, ""},
		{layout.Tmp, "/tmp", "", unix.MS_BIND, ""},
		{"/run/lib", "/var/lib", "", unix.MS_BIND, ""},
	}
	for _, step := range steps {
		if err := os.MkdirAll(step.target, 0o755); err != nil {
			return fmt.Errorf("make mount point %s: %w", step.target, err)
		}
		if err := unix.Mount(step.source, step.target, step.kind, step.flags, step.data); err != nil {
			return fmt.Errorf("mount %q on %s: %w", step.source, step.target, err)
		}
	}
	return nil
}

func prepareKernel(layout Layout) error {
	if err := unix.Sethostname([]byte(layout.Hostname)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		return fmt.Errorf("allow forwarding: %w", err)
	}
	for _, folder := range []string{"/run/netns", "/run/lock"} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return fmt.Errorf("make %s: %w", folder, err)
		}
	}
	return nil
}
