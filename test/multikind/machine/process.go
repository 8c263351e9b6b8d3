package machine

import (
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// processes is PID 1's table of what it started. mu is held while a child is
// forked, so that reap never sees an exit of a child which is not yet in the table.
type processes struct {
	mu     sync.Mutex
	byName map[string]*Status
}

func newProcesses() *processes {
	return &processes{byName: map[string]*Status{}}
}

// Start implements Client.Start.
func (t *processes) Start(p Process, reply *Status) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if known := t.byName[p.Name]; known != nil && known.Running {
		return fmt.Errorf("%s is already running as process %d of the machine", p.Name, known.PID)
	}
	log, err := os.OpenFile(filepath.Join("/var/log", p.Name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return fmt.Errorf("open input: %w", err)
	}
	defer null.Close()
	child, err := fork(p, &os.ProcAttr{
		Dir:   "/",
		Env:   append([]string{"PATH=" + BinDir + ":/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}, p.Env...),
		Files: []*os.File{null, log, log},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	status := &Status{Process: p, PID: child.Pid, Running: true, StartedAt: time.Now()}
	t.byName[p.Name] = status
	*reply = *status
	// reap waits for all children at once, orphans included.
	return child.Release()
}

// fork starts p from a thread that has its priority already, so that no thread of p
// ever has another one.
func fork(p Process, attributes *os.ProcAttr) (*os.Process, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, p.Nice); err != nil {
		return nil, fmt.Errorf("set priority: %w", err)
	}
	child, err := os.StartProcess(p.Argv[0], p.Argv, attributes)
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, 0); err != nil {
		return nil, fmt.Errorf("reset priority: %w", err)
	}
	return child, err
}

// List implements Client.List.
func (t *processes) List(_ struct{}, reply *map[string]Status) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make(map[string]Status, len(t.byName))
	for name, status := range maps.All(t.byName) {
		list[name] = *status
	}
	*reply = list
	return nil
}

// reap collects every child that ends, also those a container runtime orphaned. It
// never returns.
func (t *processes) reap() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	for range ended {
		t.collect()
	}
}

func (t *processes) collect() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		for _, status := range t.byName {
			if status.PID == pid && status.Running {
				status.Running, status.Exit = false, describe(ws)
			}
		}
	}
}

func describe(ws unix.WaitStatus) string {
	if ws.Signaled() {
		return "signal " + strings.ToLower(unix.SignalName(ws.Signal()))
	}
	return fmt.Sprintf("exit code %d", ws.ExitStatus())
}
