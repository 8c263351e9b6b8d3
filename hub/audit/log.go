// Package audit is the sink of the API server's audit events that a person can
// trust later: files whose records are chained and whose heads are signed. The form
// is that of hub/api/audittrail.
package audit

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit"

	"tripod.dev/tripod/hub/api/audittrail"
)

// AnnotationMember names, in each event, the hub member that served the request.
const AnnotationMember = "hub.tripod.dev/member"

// Config of a Log.
type Config struct {
	// Path of the file that is written; older ones stand beside it.
	Path string
	// Member is the hub member's name, Key signs for the hub.
	Member string
	Key    ed25519.PrivateKey
	// MaxBytes is the size at which a file is ended and another begun (default
	// 100 MiB), MaxFiles how many ended ones are kept (10), MaxAge for how long (30
	// days).
	MaxBytes int64
	MaxFiles int
	MaxAge   time.Duration
	// SignEvery bounds for how long a record stands that no signature vouches for;
	// default 10 s.
	SignEvery time.Duration
	// Now is wall time, for names and people; default time.Now.
	Now    func() time.Time
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.MaxBytes == 0 {
		c.MaxBytes = 100 << 20
	}
	if c.MaxFiles == 0 {
		c.MaxFiles = 10
	}
	if c.MaxAge == 0 {
		c.MaxAge = 30 * 24 * time.Hour
	}
	if c.SignEvery == 0 {
		c.SignEvery = 10 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Log is an audit.Backend. Its methods are safe for concurrent use; Run and Shutdown
// are called once each.
type Log struct {
	config  Config
	metrics *metrics
	// buffers are what lines are made in, *[]byte.
	buffers sync.Pool
	ended   sync.WaitGroup

	mu   sync.Mutex // guards the rest, and is held while a record is written
	file *output
	// The last record.
	trail    string
	sequence uint64
	hash     string
	// head is the last mark that is durable.
	head audittrail.Head
	// again is when a log that could not be written is opened again.
	again  time.Time
	closed bool
}

// openAgain bounds how often a log on a full disk is tried.
const openAgain = time.Second

// Open opens the log, goes on where it was left, and writes a mark.
func Open(config Config) (*Log, error) {
	config = config.withDefaults()
	if config.Path == "" || config.Member == "" || len(config.Key) == 0 {
		return nil, errors.New("audit: Path, Member and Key are needed")
	}
	l := &Log{config: config, metrics: newMetrics(), buffers: sync.Pool{New: func() any { return new([]byte) }}}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.openLocked(); err != nil {
		return nil, fmt.Errorf("audit: open %s: %w", config.Path, err)
	}
	return l, nil
}

// Head is the newest signed head whose records are durable.
func (l *Log) Head() audittrail.Head {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head
}

// ProcessEvents implements audit.Sink. An event is written when it returns, and
// durable when the next mark is.
func (l *Log) ProcessEvents(events ...*auditinternal.Event) bool {
	good := true
	for _, event := range events {
		if err := l.process(event); err != nil {
			good = false
			l.metrics.failed.Inc()
			audit.HandlePluginError("tripod-log", err, event)
		}
	}
	return good
}

func (l *Log) process(event *auditinternal.Event) error {
	// The event belongs to the caller.
	own := *event
	own.Annotations = l.annotations(event)
	buffer := l.buffers.Get().(*[]byte)
	defer l.buffers.Put(buffer)
	encoded, err := appendEvent((*buffer)[:0], &own)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.readyLocked(int64(len(encoded))); err != nil {
		return err
	}
	line, hash, err := audittrail.Chain(encoded, l.sequence+1, l.hash)
	if err != nil {
		return err
	}
	*buffer = kept(line)
	return l.appendLocked(line, hash)
}

// kept is a buffer that is used again, unless a request's body was in it: there are as
// many as requests that end at one moment.
func kept(buffer []byte) []byte {
	if cap(buffer) > 16<<10 {
		return nil
	}
	return buffer
}

// readyLocked opens the file again after a failure, and begins another one when
// this one would become too large.
func (l *Log) readyLocked(more int64) error {
	if l.closed {
		return errors.New("the log is closed: the member stops")
	}
	if l.file == nil {
		now := l.config.Now()
		if now.Before(l.again) {
			return errors.New("the log cannot be written: the cause was logged before")
		}
		l.again = now.Add(openAgain)
		if err := l.openLocked(); err != nil {
			return err
		}
	}
	if l.file.size+more > l.config.MaxBytes && l.file.records > 1 {
		return l.rotateLocked()
	}
	return nil
}

func (l *Log) appendLocked(line []byte, hash string) error {
	if err := l.file.write(line); err != nil {
		// What of the line reached the file is not known: it is read again.
		l.file.abandon()
		l.file = nil
		return err
	}
	l.sequence, l.hash = l.sequence+1, hash
	l.metrics.records.Inc()
	return nil
}

// markLocked writes a signed mark.
func (l *Log) markLocked(why audittrail.Mark, torn string) (audittrail.Head, error) {
	head := audittrail.Head{
		Member: l.config.Member, Trail: l.trail, Mark: why, Sequence: l.sequence + 1, Previous: l.hash, Torn: torn, At: l.config.Now(),
	}.SignWith(l.config.Key)
	line, hash, err := head.Line()
	if err != nil {
		return audittrail.Head{}, err
	}
	return head, l.appendLocked(line, hash)
}

// sealLocked writes a signed mark and makes it and all before it durable.
func (l *Log) sealLocked(why audittrail.Mark, torn string) error {
	head, err := l.markLocked(why, torn)
	if err != nil {
		return err
	}
	err = l.file.file.Sync()
	l.syncedLocked(l.file, head, err)
	return err
}

// syncedLocked takes note of how a file was made durable up to head.
func (l *Log) syncedLocked(file *output, head audittrail.Head, err error) {
	switch {
	case l.file != file:
		// It was ended meanwhile, and was made durable then.
	case err != nil:
		l.file.abandon()
		l.file = nil
	default:
		l.head = head
		l.metrics.signed.Set(float64(head.Sequence))
	}
}

// Run implements audit.Backend: it signs what was written, until stop is closed.
func (l *Log) Run(stop <-chan struct{}) error {
	l.ended.Go(func() {
		ticker := time.NewTicker(l.config.SignEvery)
		defer ticker.Stop()
		for {
			select {
			case <-stop:
				return
			case <-ticker.C:
				l.sign()
			}
		}
	})
	return nil
}

// sign writes a mark if something was written since the last one. Requests do not
// wait for the disk.
func (l *Log) sign() {
	l.mu.Lock()
	if l.closed || l.sequence == l.head.Sequence {
		l.mu.Unlock()
		return
	}
	err := l.readyLocked(0)
	var head audittrail.Head
	if err == nil {
		head, err = l.markLocked(audittrail.Sign, "")
	}
	file := l.file
	l.mu.Unlock()
	if err == nil {
		err = file.file.Sync()
		l.mu.Lock()
		ended := l.file != file
		l.syncedLocked(file, head, err)
		l.mu.Unlock()
		if ended {
			err = nil
		}
	}
	if err != nil {
		l.metrics.failed.Inc()
		l.config.Logger.Error("audit log cannot be written: requests are served and not recorded", "path", l.config.Path, "error", err)
	}
}

// Shutdown implements audit.Backend: it ends the file.
func (l *Log) Shutdown() {
	l.ended.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.closed = true
	if l.file == nil {
		return
	}
	if err := l.sealLocked(audittrail.End, ""); err != nil {
		l.config.Logger.Error("audit log was not ended in order", "path", l.config.Path, "error", err)
		return
	}
	l.file.abandon()
	l.file = nil
}

// String implements audit.Backend.
func (l *Log) String() string { return "tripod-log:" + filepath.Base(l.config.Path) }
