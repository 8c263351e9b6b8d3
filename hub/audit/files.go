package audit

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tripod.dev/tripod/hub/api/audittrail"
)

// output is the file that is written.
type output struct {
	file    *os.File
	size    int64
	records int
}

// write appends whole lines, with one system call.
func (o *output) write(line []byte) error {
	n, err := o.file.Write(line)
	o.size += int64(n)
	if err != nil {
		return fmt.Errorf("write %s: %w", o.file.Name(), err)
	}
	o.records++
	return nil
}

// abandon closes the file; what was to be durable is, or was reported.
func (o *output) abandon() { _ = o.file.Close() }

// openLocked goes on with the file that is there, or begins one.
func (l *Log) openLocked() error {
	if err := os.MkdirAll(filepath.Dir(l.config.Path), 0o700); err != nil {
		return err
	}
	position, err := l.positionOf(l.config.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return l.beginLocked()
	case errors.Is(err, audittrail.ErrNoTrail):
		// An older hub's, or damaged. It stays for whoever wants to read it.
		aside := l.endedName()
		if err := os.Rename(l.config.Path, aside); err != nil {
			return err
		}
		l.config.Logger.Warn("audit log does not go on from the file that was there: it was moved", "path", l.config.Path, "to", aside, "error", err)
		return l.beginLocked()
	case err != nil:
		return err
	}
	file, err := os.OpenFile(l.config.Path, os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	l.trail, l.sequence, l.hash = position.Trail, position.Sequence, position.Hash
	l.file = &output{file: file}
	if info, err := file.Stat(); err == nil {
		l.file.size, l.file.records = info.Size(), 2 // a mark and something else: it may be ended
	}
	if position.Open {
		if _, err := file.WriteString("\n"); err != nil {
			l.file.abandon()
			l.file = nil
			return err
		}
		l.file.size++
	}
	return l.sealLocked(audittrail.Begin, position.Torn)
}

func (l *Log) positionOf(path string) (audittrail.Position, error) {
	file, err := os.Open(path)
	if err != nil {
		return audittrail.Position{}, err
	}
	defer func() { _ = file.Close() }() // it was read only
	position, err := audittrail.Resume(filepath.Base(path), file)
	if err == nil && position.Member != l.config.Member {
		return position, fmt.Errorf("%w: it is of member %q", audittrail.ErrNoTrail, position.Member)
	}
	return position, err
}

// beginLocked begins a file: after the newest one that was ended, or a new trail.
func (l *Log) beginLocked() error {
	l.trail, l.sequence, l.hash = "", 0, ""
	if ended, err := l.endedFiles(); err == nil && len(ended) > 0 {
		if position, err := l.positionOf(ended[len(ended)-1]); err == nil {
			l.trail, l.sequence, l.hash = position.Trail, position.Sequence, position.Hash
		}
	}
	if l.trail == "" {
		id := make([]byte, 6)
		if _, err := rand.Read(id); err != nil {
			return err
		}
		l.trail = hex.EncodeToString(id)
		l.hash = audittrail.Genesis(l.config.Member, l.trail)
		l.config.Logger.Info("audit log begins a new trail", "path", l.config.Path, "trail", l.trail)
	}
	return l.createLocked()
}

// createLocked makes the file and its first mark.
func (l *Log) createLocked() error {
	file, err := os.OpenFile(l.config.Path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	l.file = &output{file: file}
	if err := l.sealLocked(audittrail.Begin, ""); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(l.config.Path))
}

// rotateLocked ends the file, begins another one, and deletes what is too old.
func (l *Log) rotateLocked() error {
	if err := l.sealLocked(audittrail.End, ""); err != nil {
		return err
	}
	l.file.abandon()
	l.file = nil
	if err := os.Rename(l.config.Path, l.endedName()); err != nil {
		return err
	}
	if err := l.createLocked(); err != nil {
		return err
	}
	l.pruneLocked()
	return nil
}

// nameTime sorts as time does; a number follows when two files end in one moment.
const nameTime = "2006-01-02T15-04-05.000"

func (l *Log) parts() (stem, extension string) {
	extension = filepath.Ext(l.config.Path)
	return strings.TrimSuffix(l.config.Path, extension) + "-", extension
}

// endedName is a name for the file when it is ended; none has it yet.
func (l *Log) endedName() string {
	stem, extension := l.parts()
	for at := l.config.Now().UTC(); ; at = at.Add(time.Millisecond) {
		name := stem + at.Format(nameTime) + extension
		if _, err := os.Lstat(name); errors.Is(err, fs.ErrNotExist) {
			return name
		}
	}
}

// endedFiles are the files that were ended, the oldest first.
func (l *Log) endedFiles() ([]string, error) {
	stem, extension := l.parts()
	entries, err := os.ReadDir(filepath.Dir(l.config.Path))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		name := filepath.Join(filepath.Dir(l.config.Path), entry.Name())
		if _, err := timeOf(name, stem, extension); err == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

func timeOf(name, stem, extension string) (time.Time, error) {
	return time.Parse(nameTime, strings.TrimSuffix(strings.TrimPrefix(name, stem), extension))
}

func (l *Log) pruneLocked() {
	ended, err := l.endedFiles()
	if err != nil {
		l.config.Logger.Warn("old audit files are not deleted", "path", l.config.Path, "error", err)
		return
	}
	stem, extension := l.parts()
	for i, name := range ended {
		at, _ := timeOf(name, stem, extension) // it was parsed before
		if len(ended)-i <= l.config.MaxFiles && l.config.Now().Sub(at) <= l.config.MaxAge {
			continue
		}
		if err := os.Remove(name); err != nil {
			l.config.Logger.Warn("an old audit file is not deleted", "path", name, "error", err)
		}
	}
}

func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
