package process

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// KillAll sends SIGKILL to every process of the container, or, where this
// process is not PID 1, to all its descendants, and returns when none is alive
// or after five seconds, with what is left. PostgreSQL gives each backend a
// session of its own, so killing one process group would not do.
func (s *Supervisor) KillAll() (left []int) {
	deadline := time.After(5 * time.Second)
	// A killed process needs a moment in the kernel to be gone.
	again := time.NewTicker(2 * time.Millisecond)
	defer again.Stop()
	for {
		if os.Getpid() == 1 {
			_ = syscall.Kill(-1, syscall.SIGKILL)
		}
		left = Descendants()
		if len(left) == 0 {
			return nil
		}
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		s.reap()
		select {
		case <-again.C:
		case <-deadline:
			return left
		}
	}
}

// Descendants lists the live processes below this one, zombies left out. For
// PID 1 these are all processes of its namespace.
func Descendants() []int {
	parents := map[int]int{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if parent, state, ok := stat(pid); ok && state != "Z" && state != "X" {
			parents[pid] = parent
		}
	}
	self := os.Getpid()
	var below []int
	for pid := range parents {
		if pid != self && (self == 1 || descends(parents, pid, self)) {
			below = append(below, pid)
		}
	}
	return below
}

func descends(parents map[int]int, pid, ancestor int) bool {
	for range len(parents) {
		parent, ok := parents[pid]
		if !ok || parent == 0 {
			return false
		}
		if parent == ancestor {
			return true
		}
		pid = parent
	}
	return false
}

// stat reads a process's parent and state. The name in parentheses may hold
// anything, so the fields are counted from its end.
func stat(pid int) (parent int, state string, ok bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, "", false
	}
	_, rest, found := strings.Cut(string(b[strings.LastIndexByte(string(b), ')'):]), ") ")
	fields := strings.Fields(rest)
	if !found || len(fields) < 2 {
		return 0, "", false
	}
	parent, err = strconv.Atoi(fields[1])
	return parent, fields[0], err == nil
}
