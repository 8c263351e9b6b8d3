package cgroup

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// needsRoot skips where the machine has no hierarchies to write to.
func needsRoot(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(mountPoint, "freezer", "cgroup.procs")); err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and a version 1 freezer hierarchy")
	}
}

func TestKillTakesAFrozenGroupWithItsChildren(t *testing.T) {
	needsRoot(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	lab := Group("tripod-lab-test-" + strconv.Itoa(os.Getpid()))
	group := lab + "/a-1"
	if err := group.Make(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := group.Kill(context.Background()); err != nil {
			t.Error(err)
		}
		if err := group.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	// The shell's child is in a group below, as a pod's processes are.
	pod := filepath.Join(mountPoint, "freezer", string(group), "pod")
	if err := os.Mkdir(pod, 0o755); err != nil {
		t.Fatal(err)
	}
	process := exec.Command("sh", "-c", `read go; sleep 60 & echo $! >"$0/cgroup.procs"; wait`, pod)
	input, err := process.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- process.Wait() }()
	if err := group.Add(process.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if _, err := input.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	err = until(ctx, func() (bool, error) {
		inPod, err := os.ReadFile(filepath.Join(pod, "cgroup.procs"))
		return len(strings.Fields(string(inPod))) == 1, err
	})
	if err != nil {
		t.Fatal(err)
	}
	if pids, err := group.Processes(); err != nil || len(pids) != 2 {
		t.Fatalf("processes %v (%v), want the shell and its child", pids, err)
	}
	if err := group.Freeze(ctx); err != nil {
		t.Fatal(err)
	}
	if err := group.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-ctx.Done():
		t.Fatal("the frozen process outlived its kill")
	}
	if err := group.Remove(ctx); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(mountPoint, "*", string(lab))); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

func TestAGroupThatIsNotThereIsEmpty(t *testing.T) {
	group := Group("tripod-lab-nowhere/a-1")
	if pids, err := group.Processes(); err != nil || len(pids) != 0 {
		t.Errorf("processes %v, %v", pids, err)
	}
	if err := group.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	if children, err := Group("tripod-lab-nowhere").Children(); err != nil || len(children) != 0 {
		t.Errorf("children %v, %v", children, err)
	}
}

// The centers of a lab are brought up at once, and share the lab's group.
func TestGroupsOfOneLabAreMadeAtOnce(t *testing.T) {
	needsRoot(t)
	for round := range 30 {
		lab := Group("tripod-lab-test-" + strconv.Itoa(os.Getpid()) + "-" + strconv.Itoa(round))
		groups := []Group{lab + "/a-1", lab + "/a-2", lab + "/b-1", lab + "/b-2"}
		failed := make([]error, len(groups))
		var making sync.WaitGroup
		for i, g := range groups {
			making.Go(func() { failed[i] = g.Make() })
		}
		making.Wait()
		for i, g := range groups {
			if failed[i] != nil {
				t.Errorf("make %s: %v", g, failed[i])
			}
		}
		for _, g := range append(groups, lab) {
			if err := g.Remove(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
}
