package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// mode is what a copy is told to be.
type mode string

const (
	stopped mode = ""
	primary mode = "primary"
	replica mode = "replica"
	fenced  mode = "fenced"
	closed  mode = "closed"
)

// kept is what a copy remembers beside its lines.
type kept struct {
	Incarnation     uint64
	Epoch, Revision int64
	Mode            mode
	Cluster         string
	// HeldEpoch is the last epoch at which this copy was the primary, and Timeline that
	// of the primary that began to write what it holds.
	HeldEpoch, Timeline int64
	// Closed is the revision that closed it.
	Closed  int64
	Follows string
	// SyncSet are the copies that a write waits for.
	SyncSet []string
}

// store is a copy's folder: state.json, lines, and what was taken back in aside.
type store struct {
	dir   string
	lines *os.File
}

func openStore(dir string) (*store, kept, []string, error) {
	s := &store{dir: dir}
	var k kept
	b, err := os.ReadFile(s.path("state.json"))
	if err == nil {
		err = json.Unmarshal(b, &k)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, k, nil, fmt.Errorf("read the copy's state: %w", err)
	}
	if s.lines, err = os.OpenFile(s.path("lines"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600); err != nil {
		return nil, k, nil, err
	}
	var all []string
	scan := bufio.NewScanner(s.lines)
	for scan.Scan() {
		all = append(all, scan.Text())
	}
	return s, k, all, scan.Err()
}

func (s *store) path(name string) string { return filepath.Join(s.dir, name) }

// keep is durable on return.
func (s *store) keep(k kept) error {
	b, err := json.Marshal(k)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(s.path("state.new"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("keep the copy's state: %w", err)
	}
	return os.Rename(s.path("state.new"), s.path("state.json"))
}

// append is durable on return.
func (s *store) append(line string) error {
	if _, err := s.lines.WriteString(line + "\n"); err != nil {
		return err
	}
	return s.lines.Sync()
}

// cut takes back all lines from n on, and keeps them aside first.
func (s *store) cut(all []string, n int) error {
	aside, err := os.OpenFile(s.path("aside"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = aside.WriteString(strings.Join(all[n:], "\n") + "\n")
	if err = errors.Join(err, aside.Sync(), aside.Close()); err != nil {
		return fmt.Errorf("keep what is taken back aside: %w", err)
	}
	size := 0
	for line := range slices.Values(all[:n]) {
		size += len(line) + 1
	}
	return errors.Join(s.lines.Truncate(int64(size)), s.lines.Sync())
}

func (s *store) close() error { return s.lines.Close() }
