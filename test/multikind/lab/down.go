package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"tripod.dev/tripod/test/multikind/center"
	"tripod.dev/tripod/test/multikind/network"
)

// Down removes the lab name below stateRoot and everything it made: processes, mounts,
// namespaces, cgroups, links, packet rules and files. It works after any crash, may be
// repeated, and leaves only the image cache that labs share. Packages stay installed.
func Down(ctx context.Context, stateRoot, name string, progress func(string)) error {
	config, err := Config{Name: name, StateRoot: stateRoot}.withDefaults()
	if err != nil {
		return err
	}
	report := serially(progress)
	unlock, err := lock(ctx, config.StateRoot, config.Name, report)
	if err != nil {
		return err
	}
	defer unlock()
	l, err := open(config)
	if errors.Is(err, fs.ErrNotExist) {
		l = &Lab{name: config.Name, root: config.StateRoot}
	} else if err != nil {
		return err
	}
	// By cgroup and not by plan: a crash may have left what the state does not name.
	parent := center.LabCgroup(l.name)
	groups, err := parent.Children()
	if err != nil {
		return err
	}
	for _, group := range groups {
		if err := group.Kill(ctx); err != nil {
			return fmt.Errorf("kill %s: %w", group, err)
		}
		if err := group.Remove(ctx); err != nil {
			return err
		}
	}
	if err := parent.Remove(ctx); err != nil {
		return err
	}
	if l.plans != nil {
		if err := network.Remove(ctx, l.state.Index); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(l.path()); err != nil {
		return fmt.Errorf("remove files: %w", err)
	}
	// Whoever waits for this lock sees that its file is gone, and makes a new one.
	if err := os.Remove(filepath.Join(l.root, "."+l.name+".lock")); err != nil {
		return fmt.Errorf("remove lock: %w", err)
	}
	report("lab " + l.name + " is gone")
	return nil
}
