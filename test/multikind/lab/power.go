package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tripod.dev/tripod/test/multikind/center"
	"tripod.dev/tripod/test/multikind/machine"
	"tripod.dev/tripod/test/multikind/network"
)

// freezeLimit bounds how long a power cut waits for the kernel to stop the center's
// processes; one in an uninterruptible wait cannot act either.
const freezeLimit = 200 * time.Millisecond

// box is a center with power.
type box struct {
	plan   center.Plan
	client *machine.Client
	// pid is PID 1's number on the host.
	pid int
}

func (b *box) Close() error { return b.client.Close() }

// root is the machine's file system as the host sees it, also what is mounted there.
func (b *box) root(path string) string { return fmt.Sprintf("/proc/%d/root%s", b.pid, path) }

func (l *Lab) socket(plan center.Plan) string { return l.path(plan.Name, "machine.sock") }

// findBox connects to a center's machine; nil when the center has no power.
func (l *Lab) findBox(ctx context.Context, plan center.Plan) (*box, error) {
	client, err := machine.Dial(ctx, l.socket(plan))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	pid, err := l.findInit(plan)
	if err != nil || pid == 0 {
		return nil, errors.Join(err, client.Close())
	}
	// The answer proves that PID 1 is past its mounts and that it is not a leftover.
	call, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if _, err := client.List(call); err != nil {
		return nil, errors.Join(fmt.Errorf("ask machine %s: %w", plan.Name, err), client.Close())
	}
	return &box{plan: plan, client: client, pid: pid}, nil
}

// findInit returns the host process number of the center's PID 1, or 0.
func (l *Lab) findInit(plan center.Plan) (int, error) {
	pids, err := plan.Cgroup.Processes()
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		if inner, depth := innerPID(pid); inner == 1 && depth == 2 {
			return pid, nil
		}
	}
	return 0, nil
}

// innerPID returns a host process's number in its innermost process namespace and how
// many namespaces deep it is; zeros when it is gone.
func innerPID(pid int) (inner, depth int) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(content)) {
		if numbers, ok := strings.CutPrefix(line, "NSpid:"); ok {
			fields := strings.Fields(numbers)
			if len(fields) == 0 {
				return 0, 0
			}
			inner, _ = strconv.Atoi(fields[len(fields)-1])
			return inner, len(fields)
		}
	}
	return 0, 0
}

// powerOn boots the center's machine, with its disk as it is. Nothing runs in it yet.
func (l *Lab) powerOn(ctx context.Context, plan center.Plan) (*box, error) {
	layout := machine.Layout{
		Hostname: plan.Name,
		Lib:      l.path(plan.Name, "lib"),
		Log:      l.path(plan.Name, "logs"),
		Tmp:      l.path(plan.Name, "tmp"),
		Programs: l.state.BinDir,
	}
	for _, folder := range []string{layout.Lib, layout.Log, layout.Tmp} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return nil, fmt.Errorf("make disk of %s: %w", plan.Name, err)
		}
	}
	if err := os.Chmod(layout.Tmp, 0o1777); err != nil {
		return nil, fmt.Errorf("make disk of %s: %w", plan.Name, err)
	}
	if err := plan.Cgroup.Make(); err != nil {
		return nil, err
	}
	pid, gate, err := l.startInit(plan)
	if err != nil {
		return nil, err
	}
	defer gate.Close()
	if err := plan.Cgroup.Add(pid); err != nil {
		return nil, err
	}
	if err := network.Connect(plan, l.plans, pid); err != nil {
		return nil, err
	}
	if err := json.NewEncoder(gate).Encode(layout); err != nil {
		return nil, fmt.Errorf("boot %s: %w", plan.Name, err)
	}
	b, err := l.findBox(ctx, plan)
	if err == nil && b == nil {
		err = errors.New("its first process ended")
	}
	if err != nil {
		return nil, fmt.Errorf("boot %s: %w; see %s", plan.Name, err, l.path(plan.Name, "logs", "machine.log"))
	}
	return b, l.setPacketRules(ctx, b)
}

// startInit starts PID 1 of a machine, waiting at its gate. If this process dies
// before the gate is opened, so does PID 1.
func (l *Lab) startInit(plan center.Plan) (pid int, gate *os.File, err error) {
	if err := os.Remove(l.socket(plan)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, nil, fmt.Errorf("remove old socket: %w", err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: l.socket(plan)})
	if err != nil {
		return 0, nil, fmt.Errorf("listen for %s: %w", plan.Name, err)
	}
	defer listener.Close()
	listener.SetUnlinkOnClose(false)
	control, err := listener.File()
	if err != nil {
		return 0, nil, fmt.Errorf("listen for %s: %w", plan.Name, err)
	}
	defer control.Close()
	log, err := os.OpenFile(l.path(plan.Name, "logs", "machine.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, nil, fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	inner, gate, err := os.Pipe()
	if err != nil {
		return 0, nil, fmt.Errorf("make gate: %w", err)
	}
	defer inner.Close()
	init := exec.Command(filepath.Join(l.state.BinDir, "multikind"), "machine")
	init.Dir = "/"
	init.Stdout, init.Stderr = log, log
	init.ExtraFiles = []*os.File{control, inner}
	init.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true,
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS |
			syscall.CLONE_NEWIPC | syscall.CLONE_NEWNET,
	}
	if err := init.Start(); err != nil {
		_ = gate.Close()
		return 0, nil, fmt.Errorf("start machine %s: %w", plan.Name, err)
	}
	// Whoever cuts the power may be another process; this one only must not keep a zombie.
	go func() { _ = init.Wait() }()
	return init.Process.Pid, gate, nil
}

func (l *Lab) setPacketRules(ctx context.Context, b *box) error {
	rules, err := b.plan.PacketRules()
	if err != nil {
		return err
	}
	command := exec.CommandContext(ctx, "nsenter", "--target", strconv.Itoa(b.pid), "--net", "nft", "-f", "-")
	command.Stdin = strings.NewReader(rules)
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("load packet rules of %s: %w: %s", b.plan.Name, err, out)
	}
	return nil
}

// powerOff cuts the center's power: from the returned moment on none of its processes
// runs and no packet leaves it. When it returns they are dead, and their memory,
// mounts and network are gone; the disk is not.
func (l *Lab) powerOff(ctx context.Context, plan center.Plan) (moment, int, error) {
	pids, err := plan.Cgroup.Processes()
	if err != nil {
		return moment{}, 0, err
	}
	limited, cancel := context.WithTimeout(ctx, freezeLimit)
	defer cancel()
	if err := plan.Cgroup.Freeze(limited); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return moment{}, 0, fmt.Errorf("freeze %s: %w", plan.Name, err)
	}
	// Unplugged before anything dies, or the kernel would say goodbye for the dead.
	if err := network.Unplug(plan); err != nil {
		return moment{}, 0, err
	}
	at := now()
	if err := plan.Cgroup.Kill(ctx); err != nil {
		return moment{}, 0, fmt.Errorf("kill %s: %w", plan.Name, err)
	}
	if err := network.Disconnect(plan); err != nil {
		return moment{}, 0, err
	}
	return at, len(pids), plan.Cgroup.Remove(ctx)
}

// moment is one instant on both clocks.
type moment struct {
	monotonic time.Duration
	wall      time.Time
}

func now() moment {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // the clock exists on every Linux
	}
	return moment{monotonic: time.Duration(ts.Nano()), wall: time.Now()}
}
