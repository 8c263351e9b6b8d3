package postgresql

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"tripod.dev/tripod/failover/driver/postgresql/wal"
	"tripod.dev/tripod/failover/guard/volume"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// complete marks a base copy that may take the old copy's place.
const complete = "tripod.complete"

// Rewind keeps the log after the fork aside and runs pg_rewind.
func (e *Copies) Rewind(ctx context.Context, source *agentv1.SourceFacts, epoch int64) (torn bool, err error) {
	if err := e.keepLog(ctx, source, epoch); err != nil {
		return false, fmt.Errorf("keep the log after the fork aside: %w", err)
	}
	if err := e.writeConfiguration(&agentv1.DatabaseSettings{}, false); err != nil {
		return false, err
	}
	conninfo, err := e.conninfo(source.GetAddress())
	if err != nil {
		return false, err
	}
	if _, err := e.tool(ctx, "", "pg_rewind", "--target-pgdata="+e.data(), "--source-server="+conninfo,
		"--config-file="+e.configuration()); err != nil {
		return true, fmt.Errorf("rewind: %w", err)
	}
	return false, e.setStandbySignal(true)
}

// keepLog copies every segment that may hold log after the fork.
func (e *Copies) keepLog(ctx context.Context, source *agentv1.SourceFacts, epoch int64) error {
	c, err := e.control(ctx)
	if err != nil {
		return err
	}
	own, err := e.history(ctx, c)
	if err != nil {
		return err
	}
	theirs, reached, err := sourceHistory(source)
	if err != nil {
		return err
	}
	timeline, at, shared := wal.Fork(own, theirs)
	if !shared {
		return errors.New("the copy shares no history with the source")
	}
	at = min(at, reached)
	folder, err := e.aside(epoch)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	segments, _, err := e.segments()
	if err != nil {
		return err
	}
	// 16 MiB segments: the name's last two parts are the position's.
	first := fmt.Sprintf("%08X%08X", uint64(at)>>32, uint32(at)>>24)
	for _, s := range segments {
		if s.timeline < timeline || s.name[8:] < first {
			continue
		}
		if err := copyFile(e.data("pg_wal", s.name), filepath.Join(folder, s.name)); err != nil {
			return err
		}
	}
	note := fmt.Sprintf("fork: timeline %d at %v\nown timeline: %d\nsource: %s timeline %d\nepoch: %d\n",
		timeline, at, own.Current, source.GetAddress(), source.GetTimeline(), epoch)
	if err := volume.WriteFile(filepath.Join(folder, "fork.txt"), []byte(note), 0o600); err != nil {
		return err
	}
	return volume.SyncDir(filepath.Dir(folder))
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}

// Copy makes a base copy beside the old one and swaps them.
func (e *Copies) Copy(ctx context.Context, source *agentv1.SourceFacts, epoch int64, keepAside bool) error {
	if err := e.writeConfiguration(&agentv1.DatabaseSettings{}, true); err != nil {
		return err
	}
	conninfo, err := e.conninfo(source.GetAddress())
	if err != nil {
		return err
	}
	fresh := e.volume.Path("data.new")
	if err := errors.Join(os.RemoveAll(fresh), e.ownFolder(fresh)); err != nil {
		return err
	}
	if _, err := e.tool(ctx, "", "pg_basebackup", "-D", fresh, "-d", conninfo, "-X", "stream", "--checkpoint=fast"); err != nil {
		return fmt.Errorf("copy afresh: %w", err)
	}
	for _, name := range []string{"standby.signal", complete} {
		if err := e.writeOwned(filepath.Join(fresh, name), nil, 0o600); err != nil {
			return err
		}
	}
	old := e.volume.Path("data.old")
	if keepAside {
		if old, err = e.aside(epoch); err != nil {
			return err
		}
	}
	if err := os.Rename(e.data(), old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return e.recoverSwap()
}

// recoverSwap finishes what a crash may have interrupted: a whole new copy
// takes an empty place, otherwise the old one returns to it.
func (e *Copies) recoverSwap() error {
	fresh, old := e.volume.Path("data.new"), e.volume.Path("data.old")
	exists := func(path string) bool { _, err := os.Stat(path); return err == nil }
	if !exists(e.data()) {
		var err error
		switch {
		case exists(filepath.Join(fresh, complete)):
			err = os.Rename(fresh, e.data())
		case exists(old):
			err = os.Rename(old, e.data())
		}
		if err != nil {
			return err
		}
	}
	if err := volume.SyncDir(e.volume.Path()); err != nil {
		return err
	}
	var errs []error
	for _, left := range []string{fresh, old, e.volume.Path("data.form")} {
		if exists(left) && (exists(e.data()) || !strings.HasSuffix(left, ".old")) {
			errs = append(errs, os.RemoveAll(left))
		}
	}
	return errors.Join(errs...)
}
