package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// behindFile remembers over restarts that the hub has gone on without this
// member, so that two that were left behind do not form a hub of their own.
const behindFile = "left-behind"

// recallBehind reads the file; no file is no.
func recallBehind(dir string) (uint64, error) {
	text, err := os.ReadFile(filepath.Join(dir, behindFile))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("store: read whether the hub has gone on without this member: %w", err)
	}
	newer, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		// Cut short by a crash; that it is there says enough.
		return ^uint64(0), nil
	}
	return newer, nil
}

// rememberBehind writes the file.
func (s *Store) rememberBehind(newer uint64) {
	path := filepath.Join(s.cfg.DataDir, behindFile)
	if err := os.WriteFile(path, []byte(strconv.FormatUint(newer, 10)+"\n"), 0o600); err != nil {
		s.log.Error("cannot remember that this member was left behind", "path", path, "error", err)
	}
}

// retire stops Raft for good when the hub has gone on without this member. What
// it holds can still be read here, without any promise that it is current.
func (s *Store) retire(ctx context.Context) {
	tick := time.NewTicker(retireInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := s.intro.leftBehind(); err != nil {
			s.log.Error("this member is read-only from now on", "error", err)
			if err := s.shutdownRaft(); err != nil {
				s.log.Error("cannot stop raft", "error", err)
			}
			return
		}
	}
}

const retireInterval = 100 * time.Millisecond
