package store

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
	"golang.org/x/sys/unix"
)

// disk is what a member keeps under its data directory besides the database:
//
//	LOCK                held while a process uses the directory
//	name                the member that it belongs to
//	altered             why the data are not to be used; see auditor
//	raft/log            Raft's log, votes and term
//	raft/snapshots      Raft's snapshots
type disk struct {
	dir   string
	lock  *os.File
	space *space
	log   *guardedLog
	// logMeta is closed here because raft-wal 0.4.0 leaves it open, locked.
	logMeta   metadb.BoltMetaDB
	recent    *recentLog
	snapshots raft.SnapshotStore
	slog      *slog.Logger
}

func openDisk(cfg Config) (_ *disk, err error) {
	d := &disk{dir: cfg.DataDir, slog: cfg.Logger}
	logDir := filepath.Join(cfg.DataDir, "raft", "log")
	if err := os.MkdirAll(logDir, 0o700); err != nil {
		return nil, fmt.Errorf("store: create data directory: %w", err)
	}
	if d.lock, err = lockDir(cfg.DataDir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	if err := claimName(cfg.DataDir, cfg.Name); err != nil {
		return nil, err
	}
	if err := refuseAltered(cfg.DataDir); err != nil {
		return nil, err
	}
	if d.space, err = newSpace(cfg.DataDir, cfg.SpaceReserve, cfg.Quota, cfg.Logger); err != nil {
		return nil, err
	}
	if err := d.openLog(cfg, logDir); err != nil {
		return nil, err
	}
	d.recent = newRecentLog(d.log, recentBytes)
	if d.snapshots, err = openSnapshots(cfg.DataDir, cfg.Logger); err != nil {
		return nil, err
	}
	return d, nil
}

// openLog opens the Raft log and reads it whole.
func (d *disk) openLog(cfg Config, dir string) error {
	if err := checkFile(filepath.Join(dir, "wal-meta.db")); err != nil {
		return err
	}
	err := withoutPanic(func() error {
		files := newSegments(dir, cfg.Fail)
		if err := finishRotation(dir, files, &d.logMeta, cfg.SegmentBytes); err != nil {
			return err
		}
		w, err := wal.Open(dir, wal.WithSegmentSize(cfg.SegmentBytes), wal.WithMetaStore(&d.logMeta),
			wal.WithSegmentFiler(files), wal.WithLogger(raftLogTo(cfg.Logger)))
		if err != nil {
			return err
		}
		d.log = &guardedLog{WAL: w, space: d.space, points: cfg.Fail, fail: func(error) {}}
		return d.log.verify()
	})
	if err != nil {
		return fmt.Errorf("store: open the Raft log in %s: %w: %s", dir, err, startAfresh)
	}
	return nil
}

func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "LOCK"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("store: lock data directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("store: data directory %s is in use by another process: stop that or choose another directory: %w", dir, err)
	}
	return f, nil
}

// claimName refuses a directory of another member: its votes are not ours.
func claimName(dir, name string) error {
	path := filepath.Join(dir, "name")
	have, err := os.ReadFile(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return os.WriteFile(path, []byte(name+"\n"), 0o600)
	case err != nil:
		return fmt.Errorf("store: read member name: %w", err)
	case len(have) == 0:
		// A crash between creating and writing it.
		return os.WriteFile(path, []byte(name+"\n"), 0o600)
	case strings.TrimSpace(string(have)) != name:
		return fmt.Errorf("store: data directory %s belongs to member %q, not to %q: start it with that name, or give %q an empty directory",
			dir, strings.TrimSpace(string(have)), name, name)
	}
	return nil
}

// reconcile brings the database and Raft's files to where Raft may start from
// them. Raft is told not to restore its snapshot at the start, because the
// database normally is ahead of it; here the other cases are handled.
func (d *disk) reconcile(m *machine) error {
	snapshots, err := d.snapshots.List()
	if err != nil {
		return fmt.Errorf("store: list snapshots: %w", err)
	}
	last, err := d.log.LastIndex()
	if err != nil {
		return fmt.Errorf("store: read the Raft log: %w", err)
	}
	applied := m.applied.Load()
	m.replayed = last
	if err := d.continuous(snapshots); err != nil {
		return err
	}
	if len(snapshots) > 0 {
		newest := snapshots[0]
		if last, err = d.forgetBefore(newest.Index, last); err != nil {
			return err
		}
		// A crash came between keeping a received snapshot and restoring it.
		if lastVisible(d, newest.Index) > applied {
			if err := d.restore(m, newest); err != nil {
				return err
			}
		}
	}
	if applied > last {
		return fmt.Errorf("store: the database in %s has applied entry %d but the Raft log ends at %d, so part of the log is lost: %s",
			d.dir, applied, last, startAfresh)
	}
	return nil
}

// forgetBefore drops a log that ends at last, before the newest snapshot does: a
// crash came between keeping a received snapshot and dropping what it replaces, and
// the log takes no entry that does not follow its last. It returns where log and
// snapshot end together.
func (d *disk) forgetBefore(snapshot, last uint64) (uint64, error) {
	if last >= snapshot {
		return last, nil
	}
	if last > 0 {
		first, err := d.log.FirstIndex()
		if err == nil {
			err = d.log.DeleteRange(first, last)
		}
		if err != nil {
			return 0, fmt.Errorf("store: drop the Raft log before entry %d: %w", snapshot, err)
		}
	}
	return snapshot, nil
}

// continuous says whether the log begins where the newest snapshot ends, or before.
func (d *disk) continuous(snapshots []*raft.SnapshotMeta) error {
	first, err := d.log.FirstIndex()
	if err != nil {
		return fmt.Errorf("store: read the Raft log: %w", err)
	}
	end := uint64(0)
	if len(snapshots) > 0 {
		end = snapshots[0].Index
	}
	if first > end+1 {
		return fmt.Errorf("store: the Raft log in %s begins at entry %d and the newest snapshot ends at %d: what is between is lost: %s", d.dir, first, end, startAfresh)
	}
	return nil
}

// lastVisible is index, less the no-ops and barriers at the end that the state
// machine never sees, as far as the log still knows them.
func lastVisible(d *disk, index uint64) uint64 {
	for ; index > 0; index-- {
		var entry raft.Log
		if err := d.log.GetLog(index, &entry); err != nil {
			return index
		}
		if entry.Type == raft.LogCommand || entry.Type == raft.LogConfiguration {
			return index
		}
	}
	return 0
}

func (d *disk) restore(m *machine, meta *raft.SnapshotMeta) error {
	path := filepath.Join(d.dir, "raft", "snapshots", meta.ID)
	_, source, err := d.snapshots.Open(meta.ID)
	if err == nil {
		defer source.Close()
		err = m.Restore(source)
	}
	if errors.Is(err, ErrTooOld) {
		return fmt.Errorf("store: refusing to start: %w", err)
	}
	if err != nil {
		return fmt.Errorf("store: snapshot %s is newer than the database and cannot be used: %w: %s", path, err, startAfresh)
	}
	return nil
}

// start bootstraps if asked to and starts Raft.
func (d *disk) start(cfg Config, m *machine, transport raft.Transport, changes chan bool) (*raft.Raft, error) {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(cfg.Name)
	// patience makes the heartbeat time-out longer for a moment.
	c.HeartbeatTimeout, c.ElectionTimeout = cfg.Timing.Heartbeat, max(cfg.Timing.Election, cfg.Timing.Heartbeat+longer)
	c.LeaderLeaseTimeout, c.CommitTimeout = cfg.Timing.LeaderLease, cfg.Timing.Commit
	c.MaxAppendEntries = 256
	c.BatchApplyCh = true
	c.SnapshotThreshold, c.TrailingLogs, c.SnapshotInterval = cfg.SnapshotThreshold, cfg.TrailingLogs, cfg.SnapshotInterval
	c.NoSnapshotRestoreOnStart = true
	c.NotifyCh = changes
	c.Logger = raftLogTo(cfg.Logger)
	c.NoLegacyTelemetry = true
	if cfg.Bootstrap {
		if err := d.bootstrap(cfg, c, transport); err != nil {
			return nil, err
		}
	}
	start := time.Now()
	r, err := raft.NewRaft(c, m, d.recent, d.log, d.snapshots, transport)
	if err != nil {
		return nil, fmt.Errorf("store: start Raft: %w", err)
	}
	d.recent.early.standing.Store(standingOf(r))
	d.slog.Info("store opened", "index", m.applied.Load(), "took", time.Since(start))
	return r, nil
}

func (d *disk) bootstrap(cfg Config, c *raft.Config, transport raft.Transport) error {
	exists, err := raft.HasExistingState(d.log, d.log, d.snapshots)
	if err != nil {
		return fmt.Errorf("store: look for existing state: %w", err)
	}
	if exists {
		return nil
	}
	var first raft.Configuration
	for _, m := range cfg.Members {
		first.Servers = append(first.Servers, raft.Server{
			Suffrage: raft.Voter, ID: raft.ServerID(m.Name), Address: raft.ServerAddress(m.RaftAddress),
		})
	}
	if err := raft.BootstrapCluster(c, d.log, d.log, d.snapshots, transport, first); err != nil {
		return fmt.Errorf("store: write the first configuration: %w", err)
	}
	return nil
}

func (d *disk) close() error {
	var errs []error
	if d.recent != nil {
		_ = d.recent.early.flush() // a failure has stopped the member and was told
	}
	if d.log != nil {
		errs = append(errs, d.log.Close(), d.logMeta.Close())
	}
	if d.lock != nil {
		errs = append(errs, d.lock.Close())
	}
	return errors.Join(errs...)
}
