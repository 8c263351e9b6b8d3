// Package volume keeps the guard's memory beside the data it is about.
package volume

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Volume is a folder that one guard holds exclusively.
type Volume struct {
	dir  string
	lock *os.File
}

// Open takes the volume, or fails at once when another guard holds it: two
// databases on one copy are two writers.
func Open(dir string) (*Volume, error) {
	if err := os.MkdirAll(filepath.Join(dir, "tripod"), 0o711); err != nil {
		return nil, fmt.Errorf("open volume %s: %w", dir, err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "tripod", "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open volume %s: %w", dir, err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("volume %s is held by another guard, stop that one first: %w", dir, err)
	}
	return &Volume{dir: dir, lock: lock}, nil
}

// Close gives the volume back.
func (v *Volume) Close() error { return v.lock.Close() }

// Path joins names to the volume's folder.
func (v *Volume) Path(names ...string) string {
	return filepath.Join(append([]string{v.dir}, names...)...)
}

func (v *Volume) state() string { return v.Path("tripod", "state.json") }

// Load reads the memory into m; an empty volume leaves m as it is.
func (v *Volume) Load(m any) error {
	b, err := os.ReadFile(v.state())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the memory of the volume: %w", err)
	}
	if err := json.Unmarshal(b, m); err != nil {
		return fmt.Errorf("%s is damaged, restore it or copy the database afresh into an empty volume: %w", v.state(), err)
	}
	return nil
}

// Save replaces the memory; it is durable on return.
func (v *Volume) Save(m any) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the memory of the volume: %w", err)
	}
	if err := WriteFile(v.state(), b, 0o600); err != nil {
		return fmt.Errorf("keep the memory of the volume: %w", err)
	}
	return nil
}

// WriteFile replaces a file whole and makes it durable.
func WriteFile(path string, b []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes renames in a folder durable.
func SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
