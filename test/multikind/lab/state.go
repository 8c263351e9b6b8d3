package lab

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"tripod.dev/tripod/test/multikind/center"
	"tripod.dev/tripod/test/multikind/fault"
)

// state is what a lab remembers on disk. It is written before anything it names is
// made, so that Down finds everything.
type state struct {
	Index   int               `json:"index"`
	BinDir  string            `json:"binDir"`
	Centers []string          `json:"centers"`
	Nodes   Nodes             `json:"nodes"`
	Hub     bool              `json:"hub"`
	Store   Store             `json:"store,omitempty"` // empty is etcd
	Cuts    []fault.Direction `json:"cuts,omitempty"`
}

const stateFile = "lab.json"

// Lab is one lab of this machine. Methods that change it wait for each other, also
// across processes.
type Lab struct {
	name   string
	root   string
	state  state
	plans  []center.Plan
	report func(string)
	// hubTokenMu is held while the hub token is read or made.
	hubTokenMu sync.Mutex
}

// Open finds the lab name below stateRoot; empty strings mean the defaults. It is
// fs.ErrNotExist when there is none.
func Open(stateRoot, name string) (*Lab, error) {
	config, err := Config{Name: name, StateRoot: stateRoot}.withDefaults()
	if err != nil {
		return nil, err
	}
	return open(config)
}

func open(config Config) (*Lab, error) {
	l := &Lab{name: config.Name, root: config.StateRoot, report: func(string) {}}
	content, err := os.ReadFile(l.path(stateFile))
	if err != nil {
		return nil, fmt.Errorf("open lab %s: %w; start it with multikind up", config.Name, err)
	}
	if err := json.Unmarshal(content, &l.state); err != nil {
		return nil, fmt.Errorf("read state of lab %s: %w", config.Name, err)
	}
	return l, l.layOut()
}

// layOut makes the plans of the centers from the state.
func (l *Lab) layOut() (err error) {
	l.plans, err = center.Plans(l.name, l.state.Index, l.state.Centers)
	for i := range l.plans {
		l.plans[i].HubStore = l.state.Store == StoreTripod
	}
	return err
}

// create makes a new lab's state, or changes that of an existing one to config.
func create(config Config) (*Lab, error) {
	l, err := open(config)
	if errors.Is(err, fs.ErrNotExist) {
		if config.Centers == nil {
			config.Centers = DefaultCenters()
		}
		l = &Lab{name: config.Name, root: config.StateRoot, state: state{Centers: config.Centers, Nodes: NodesReal, Hub: true, Store: config.Store}}
		l.state.Index, err = freeIndex(config)
	}
	if err != nil {
		return nil, err
	}
	if config.Centers != nil && !slices.Equal(config.Centers, l.state.Centers) {
		return nil, fmt.Errorf("lab %s has the centers %v, not %v; run multikind down first, or use another --name",
			l.name, l.state.Centers, config.Centers)
	}
	if config.Store != "" && config.Store != cmp.Or(l.state.Store, StoreEtcd) {
		return nil, fmt.Errorf("the clusters of lab %s keep their objects in %s, not in %s; run multikind down first, or use another --name",
			l.name, cmp.Or(l.state.Store, StoreEtcd), config.Store)
	}
	if config.Nodes != "" {
		l.state.Nodes = config.Nodes
	}
	if config.Hub != nil {
		l.state.Hub = *config.Hub
	}
	l.state.BinDir = config.BinDir
	if err := l.layOut(); err != nil {
		return nil, err
	}
	return l, l.save()
}

// freeIndex returns the lowest subnet number that no lab of this state root has.
func freeIndex(config Config) (int, error) {
	files, err := filepath.Glob(filepath.Join(config.StateRoot, "*", stateFile))
	if err != nil {
		return 0, fmt.Errorf("list labs: %w", err)
	}
	taken := map[int]bool{}
	for _, file := range files {
		other, err := Open(config.StateRoot, filepath.Base(filepath.Dir(file)))
		if err != nil {
			return 0, err
		}
		taken[other.state.Index] = true
	}
	for index := range 100 {
		// A bridge without a lab belongs to another state root.
		if _, err := os.Stat("/sys/class/net/" + center.Bridge(index)); !taken[index] && errors.Is(err, fs.ErrNotExist) {
			return index, nil
		}
	}
	return 0, fmt.Errorf("no subnet is free for lab %s: a hundred labs are on this machine", config.Name)
}

func (l *Lab) save() error {
	content, err := json.MarshalIndent(l.state, "", "  ")
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	return replaceFile(l.path(stateFile), content, 0o644)
}

// replaceFile writes content so that a crash leaves the old file or the new one.
func replaceFile(path string, content []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	if err := os.WriteFile(path+".new", content, mode); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	return nil
}

// path is a file in the lab's state folder.
func (l *Lab) path(elements ...string) string {
	return filepath.Join(append([]string{l.root, l.name}, elements...)...)
}

// lock waits until no other process holds the lock name below root. The kernel gives
// it back when this process dies.
func lock(ctx context.Context, root, name string, report func(string)) (unlock func(), err error) {
	if err := os.MkdirAll(root, 0o755); err != nil {
		return nil, fmt.Errorf("make state folder: %w", err)
	}
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for told := false; ; told = true {
		file, err := tryLock(filepath.Join(root, "."+name+".lock"))
		if err != nil {
			return nil, fmt.Errorf("lock lab %s: %w", name, err)
		}
		if file != nil {
			return func() { _ = file.Close() }, nil
		}
		if !told {
			report("waiting for another multikind that changes " + name)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for lab %s: %w", name, ctx.Err())
		case <-ticker.C:
		}
	}
}

// tryLock returns the locked file at path, or nil when another process has it. The
// file may be removed by its holder, so a lock on a file that is no longer at path is
// none.
func tryLock(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = file.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, nil
		}
		return nil, err
	}
	mine, err := file.Stat()
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	current, err := os.Stat(path)
	if err != nil || !os.SameFile(mine, current) {
		_ = file.Close()
		return nil, nil
	}
	return file, nil
}
