// Package cgroup makes, kills and removes the cgroup (version 1) of one center. The
// same path exists in every hierarchy, because a kubelet wants its root in all of
// them; the freezer hierarchy also is the lab's record of which processes belong to
// the center.
package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	mountPoint = "/sys/fs/cgroup"
	// system is the child that holds a center's own processes; its pods are beside it.
	system = "system"
	poll   = 2 * time.Millisecond
	// labShares is the processor weight of a whole lab; a process outside has 1024.
	labShares = "65536"
)

// Group is a center's path below every hierarchy's mount point, such as
// "tripod-lab-default/north-1".
type Group string

// Make creates the group in all hierarchies. It may be repeated.
func (g Group) Make() error {
	hierarchies, err := hierarchies()
	if err != nil {
		return err
	}
	if !slices.Contains(hierarchies, "freezer") {
		return fmt.Errorf("cgroup: no version 1 freezer below %s; the lab needs cgroup v1 hierarchies mounted there", mountPoint)
	}
	for _, hierarchy := range hierarchies {
		folder := filepath.Join(mountPoint, hierarchy)
		for _, part := range append(strings.Split(string(g), "/"), system) {
			parent := folder
			folder = filepath.Join(folder, part)
			if err := os.Mkdir(folder, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("make cgroup: %w", err)
			}
			if hierarchy == "cpu" && folder == filepath.Join(mountPoint, hierarchy, filepath.Dir(string(g))) {
				// A group weighs as much as one process outside of it; a lab is several machines.
				if err := set(filepath.Join(folder, "cpu.shares"), []byte(labShares)); err != nil {
					return fmt.Errorf("weigh cgroup: %w", err)
				}
			}
			if hierarchy == "cpuset" {
				// A new cpuset has no processors or memory, and refuses processes.
				if err := inherit(parent, folder, "cpuset.cpus", "cpuset.mems"); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Add moves the host process pid into the group's system part.
func (g Group) Add(pid int) error {
	hierarchies, err := hierarchies()
	if err != nil {
		return err
	}
	for _, hierarchy := range hierarchies {
		file := filepath.Join(mountPoint, hierarchy, string(g), system, "cgroup.procs")
		if err := set(file, []byte(strconv.Itoa(pid))); err != nil {
			return fmt.Errorf("join cgroup: %w", err)
		}
	}
	return nil
}

// Processes returns the host process numbers of everything in the group, pods
// included. A group that does not exist has none.
func (g Group) Processes() ([]int, error) {
	var pids []int
	root := filepath.Join(mountPoint, "freezer", string(g))
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil {
			return ignoreGone(err)
		}
		for field := range strings.FieldsSeq(string(content)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				return fmt.Errorf("parse %s: %w", path, err)
			}
			pids = append(pids, pid)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list cgroup: %w", err)
	}
	return pids, nil
}

// Freeze stops every process of the group from running, all at once, and returns
// when the kernel says that none runs any more or the context ends.
func (g Group) Freeze(ctx context.Context) error {
	if err := g.setFreezer("FROZEN"); err != nil {
		return err
	}
	return until(ctx, func() (bool, error) {
		state, err := os.ReadFile(g.freezer("freezer.state"))
		return strings.TrimSpace(string(state)) == "FROZEN", ignoreGone(err)
	})
}

// LimitWrites bounds the writes a second to the block device MAJOR:MINOR, separately for
// each group at or below g that exists now; 0 lifts the bound. A group that does not
// exist needs none.
func (g Group) LimitWrites(device string, perSecond int) error {
	root := filepath.Join(mountPoint, "blkio", string(g))
	limit := fmt.Appendf(nil, "%s %d", device, perSecond)
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return ignoreGone(err)
		}
		return ignoreGone(os.WriteFile(filepath.Join(path, "blkio.throttle.write_iops_device"), limit, 0o644))
	})
	if err != nil {
		return fmt.Errorf("limit writes: %w", err)
	}
	return nil
}

// Kill sends SIGKILL to everything in the group and returns when nothing of it is
// left. On a frozen group no process runs again before it dies.
func (g Group) Kill(ctx context.Context) error {
	return until(ctx, func() (bool, error) {
		pids, err := g.Processes()
		if err != nil {
			return false, err
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return false, fmt.Errorf("kill process %d: %w", pid, err)
			}
		}
		if len(pids) == 0 {
			return true, nil
		}
		return false, g.setFreezer("THAWED")
	})
}

// Remove deletes the group from all hierarchies, deepest first, and its parents
// when they have become empty. No process may be left in it.
func (g Group) Remove(ctx context.Context) error {
	hierarchies, err := hierarchies()
	if err != nil {
		return err
	}
	for _, hierarchy := range hierarchies {
		root := filepath.Join(mountPoint, hierarchy, string(g))
		// A process that just died leaves its group a moment after its number is gone.
		if err := until(ctx, func() (bool, error) { return removeTree(root) }); err != nil {
			return fmt.Errorf("remove cgroup %s: %w", root, err)
		}
		// Fails while other centers of the lab exist, as it should.
		_ = unix.Rmdir(filepath.Dir(root))
	}
	return nil
}

// Children returns the groups directly below g, in any hierarchy: what a crashed
// lab may have left behind.
func (g Group) Children() ([]Group, error) {
	hierarchies, err := hierarchies()
	if err != nil {
		return nil, err
	}
	var children []Group
	for _, hierarchy := range hierarchies {
		entries, err := os.ReadDir(filepath.Join(mountPoint, hierarchy, string(g)))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("list cgroups: %w", err)
		}
		for _, entry := range entries {
			child := g + "/" + Group(entry.Name())
			if entry.IsDir() && !slices.Contains(children, child) {
				children = append(children, child)
			}
		}
	}
	return children, nil
}

func (g Group) freezer(file string) string {
	return filepath.Join(mountPoint, "freezer", string(g), file)
}

func (g Group) setFreezer(state string) error {
	return ignoreGone(os.WriteFile(g.freezer("freezer.state"), []byte(state), 0o644))
}

// hierarchies returns the hierarchies mounted on this machine, a version 2 one beside
// them included: runc makes a pod's group there too.
func hierarchies() ([]string, error) {
	entries, err := os.ReadDir(mountPoint)
	if err != nil {
		return nil, fmt.Errorf("list cgroup hierarchies: %w", err)
	}
	var found []string
	for _, entry := range entries {
		if _, err := os.Stat(filepath.Join(mountPoint, entry.Name(), "cgroup.procs")); err == nil && entry.IsDir() {
			found = append(found, entry.Name())
		}
	}
	return found, nil
}

func inherit(parent, child string, files ...string) error {
	for _, file := range files {
		var value []byte
		err := online(func() (err error) {
			value, err = os.ReadFile(filepath.Join(parent, file))
			return err
		})
		if err != nil {
			return fmt.Errorf("read cgroup: %w", err)
		}
		if err := set(filepath.Join(child, file), value); err != nil {
			return fmt.Errorf("set cgroup: %w", err)
		}
	}
	return nil
}

// set writes a cgroup's file.
func set(file string, value []byte) error {
	return online(func() error { return os.WriteFile(file, value, 0o644) })
}

// online does something with a file of a cgroup. A folder that another goroutine has
// just made is there a moment before its files are, and those a moment before they can
// be used.
func online(do func() error) error {
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	for deadline := time.Now().Add(time.Second); ; <-ticker.C {
		err := do()
		early := errors.Is(err, unix.ENODEV) || errors.Is(err, fs.ErrNotExist)
		if !early || time.Now().After(deadline) {
			return err
		}
	}
}

// removeTree removes root and all below it. It reports whether nothing is left.
func removeTree(root string) (bool, error) {
	var folders []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			folders = append(folders, path)
		}
		return ignoreGone(err)
	})
	if err != nil {
		return false, err
	}
	for _, folder := range slices.Backward(folders) {
		switch err := unix.Rmdir(folder); {
		case errors.Is(err, unix.EBUSY), errors.Is(err, unix.ENOTEMPTY):
			return false, nil
		case err != nil && !errors.Is(err, unix.ENOENT):
			return false, err
		}
	}
	return true, nil
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

func until(ctx context.Context, done func() (bool, error)) error {
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}
