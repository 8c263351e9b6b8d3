package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tripod.dev/tripod/test/multikind/center"
	"tripod.dev/tripod/test/multikind/machine"
)

// readyLimit bounds each wait for a part to become ready. A busy two-core machine
// needs seconds.
const readyLimit = 4 * time.Minute

// containerPrograms are processes that faults may name and that run in pods, by the
// name of their program.
var containerPrograms = map[string]string{
	"agent":    "tripod-agent",
	"guard":    "tripod-guard",
	"postgres": "postgres",
}

// ensure starts those of the processes that do not run.
func (l *Lab) ensure(ctx context.Context, b *box, processes ...machine.Process) error {
	running, err := b.client.List(ctx)
	if err != nil {
		return err
	}
	for _, process := range processes {
		known, started := running[process.Name]
		if started && known.Running {
			continue
		}
		if started {
			l.report(fmt.Sprintf("%s: starting %s again after %s", b.plan.Name, process.Name, known.Exit))
		}
		if err := b.client.Start(ctx, process); err != nil {
			return err
		}
	}
	return nil
}

// victims returns the host process numbers of the process name in a center: a process
// of the center itself, or all processes of that program in its pods.
func (l *Lab) victims(ctx context.Context, b *box, name string) ([]int, error) {
	pids, err := b.plan.Cgroup.Processes()
	if err != nil {
		return nil, err
	}
	var found []int
	if program, ok := containerPrograms[name]; ok {
		for _, pid := range pids {
			if _, depth := innerPID(pid); depth > 2 && programOf(pid) == program {
				found = append(found, pid)
			}
		}
	} else {
		list, err := b.client.List(ctx)
		if err != nil {
			return nil, err
		}
		status := list[name]
		for _, pid := range pids {
			if inner, depth := innerPID(pid); status.Running && depth == 2 && inner == status.PID {
				found = append(found, pid)
			}
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no process %s runs in %s; faults know %s", name, b.plan.Name, strings.Join(processNames(), ", "))
	}
	return found, nil
}

func processNames() []string {
	names := []string{center.Etcd, center.APIServer, center.ControllerManager, center.Scheduler,
		center.Containerd, center.Kubelet, center.Proxy, center.Hub}
	for name := range containerPrograms {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// programOf returns the base name of a process's program, or "".
func programOf(pid int) string {
	target, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return ""
	}
	return filepath.Base(strings.TrimSuffix(target, " (deleted)"))
}

func stopped(pid int) bool {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	// The state follows the program's name, which may contain anything but ends with the last parenthesis.
	_, rest, _ := strings.Cut(string(content[max(0, strings.LastIndexByte(string(content), ')')):]), " ")
	return strings.HasPrefix(rest, "T")
}

// await calls check until it returns nil. It gives up when the process that should
// make it true has ended, with the end of its log.
func await(ctx context.Context, b *box, process, what string, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		attempt, done := context.WithTimeout(ctx, 10*time.Second)
		last := check(attempt)
		done()
		if last == nil {
			return nil
		}
		list, err := b.client.List(ctx)
		if status := list[process]; err == nil && !status.Running {
			return fmt.Errorf("wait for %s: %s ended with %s: %s", what, process, status.Exit, b.tail(process))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, errors.Join(ctx.Err(), last))
		case <-ticker.C:
		}
	}
}

// awaitEnd waits until the process name of the center has ended.
func awaitEnd(ctx context.Context, b *box, name string) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		list, err := b.client.List(ctx)
		if err != nil || !list[name].Running {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s to end: %w", name, ctx.Err())
		case <-ticker.C:
		}
	}
}

// tail returns the last lines of a process's log.
func (b *box) tail(process string) string {
	content, err := os.ReadFile(b.root("/var/log/" + process + ".log"))
	if err != nil {
		return err.Error()
	}
	return string(content[max(0, len(content)-600):])
}
