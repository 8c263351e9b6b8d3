package hub

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// openDataFolder makes the data folder and locks it, before anything in it is
// read or written: a second process would give the first one's files new keys.
// The kernel gives the lock back when the process ends.
func (m *Member) openDataFolder(context.Context) error {
	if err := os.MkdirAll(m.config.DataDir, 0o755); err != nil {
		return fmt.Errorf("%w: dataDir must be a folder that this user can write", err)
	}
	lock, err := os.OpenFile(filepath.Join(m.config.DataDir, "LOCK"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("lock %s: %w: dataDir must be a folder that this user can write", m.config.DataDir, err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = lock.Close() // nothing was written
		return fmt.Errorf("%s is in use by another process: stop that tripod-hub, or choose another dataDir", m.config.DataDir)
	}
	m.lock = lock
	return nil
}

// remedy adds to an error of the network what a person can do about it.
func remedy(err error, self MemberConfig) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%w: another process has this port; is a tripod-hub running already? `ss -tulpn` tells", err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w: the address of %s in members (%s) must be one of this machine; `ip address` lists them", err, self.Name, self.Address)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%w: ports below 1024 need root or CAP_NET_BIND_SERVICE, files need to be this user's", err)
	default:
		return err
	}
}
