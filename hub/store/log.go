package store

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// zapTo gives etcd's packages a logger that writes to log. Fatal panics instead
// of exiting: etcd calls it when the backend cannot be written, and the panic
// carries the message to whoever supervises the process.
func zapTo(log *slog.Logger) *zap.Logger {
	return zap.New(zapCore{log: log}, zap.WithFatalHook(zapcore.WriteThenPanic))
}

type zapCore struct{ log *slog.Logger }

func (c zapCore) level(l zapcore.Level) slog.Level {
	switch {
	case l >= zapcore.ErrorLevel:
		return slog.LevelError
	case l == zapcore.WarnLevel:
		return slog.LevelWarn
	default:
		// etcd's packages report every step at Info; to an operator of the hub
		// that is detail.
		return slog.LevelDebug
	}
}

func (c zapCore) Enabled(l zapcore.Level) bool {
	return c.log.Enabled(context.Background(), c.level(l))
}

func (c zapCore) With(fields []zapcore.Field) zapcore.Core {
	return zapCore{log: c.log.With(attrs(fields)...)}
}

func (c zapCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) || e.Level >= zapcore.PanicLevel {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c zapCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	c.log.Log(context.Background(), c.level(e.Level), e.Message, attrs(fields)...)
	return nil
}

func (c zapCore) Sync() error { return nil }

func attrs(fields []zapcore.Field) []any {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(enc)
	}
	out := make([]any, 0, len(fields))
	for _, f := range fields {
		if v, ok := enc.Fields[f.Key]; ok {
			out = append(out, slog.Any(f.Key, v))
		}
	}
	return out
}

// raftLog gives hashicorp/raft a logger that writes to slog.
type raftLog struct {
	hclog.Logger
	log  *slog.Logger
	said *said
}

func raftLogTo(log *slog.Logger) hclog.Logger {
	return raftLog{Logger: hclog.NewNullLogger(), log: log, said: &said{last: map[string]time.Time{}, now: time.Now}}
}

// ordinary is what raft warns of in every election and every start of a member,
// with the level it has for an operator of the hub.
var ordinary = map[string]slog.Level{
	"heartbeat timeout reached, starting election":               slog.LevelInfo,
	"Election timeout reached, restarting election":              slog.LevelInfo,
	"failed to decode incoming command":                          slog.LevelWarn, // the other end is gone
	"failed to get previous log":                                 slog.LevelDebug,
	"previous log term mis-match":                                slog.LevelDebug,
	"clearing log suffix":                                        slog.LevelDebug,
	"appendEntries rejected, sending older logs":                 slog.LevelDebug,
	"new leader elected, stepping down":                          slog.LevelDebug,
	"peer has newer term, stopping replication":                  slog.LevelDebug,
	"rejecting vote request since we have a leader":              slog.LevelDebug,
	"rejecting vote request since our last term is greater":      slog.LevelDebug,
	"rejecting vote request since our last index is greater":     slog.LevelDebug,
	"rejecting pre-vote request since we have a leader":          slog.LevelDebug,
	"rejecting pre-vote request since our last term is greater":  slog.LevelDebug,
	"rejecting pre-vote request since our last index is greater": slog.LevelDebug,
}

// unreachable is what raft says several times a second of a member that does
// not answer, by the argument that names the member.
var unreachable = map[string]string{
	"failed to heartbeat to":                  "peer",
	"failed to appendEntries to":              "peer",
	"failed to pipeline appendEntries":        "peer",
	"failed to start pipeline replication to": "peer",
	"failed to make requestVote RPC":          "target",
	"failed to contact":                       "server-id",
}

// repeatAfter is how long the same word about the same member is not repeated.
const repeatAfter = 30 * time.Second

// said remembers what was said lately.
type said struct {
	mu   sync.Mutex
	last map[string]time.Time
	now  func() time.Time
}

// lately is true when what was said within repeatAfter, and notes it otherwise.
func (s *said) lately(what string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if at, ok := s.last[what]; ok && now.Sub(at) < repeatAfter {
		return true
	}
	s.last[what] = now
	return false
}

func (l raftLog) Log(level hclog.Level, msg string, args ...any) {
	l.log.Log(context.Background(), l.level(level, msg, args), msg, stringers(args)...)
}

// level is what a line of raft's is for an operator.
func (l raftLog) level(level hclog.Level, msg string, args []any) slog.Level {
	if usual, ok := ordinary[msg]; ok {
		if usual > slog.LevelDebug && l.said.lately(msg) {
			return slog.LevelDebug // without a majority, once a second
		}
		return usual
	}
	if key, ok := unreachable[msg]; ok {
		if l.said.lately(msg + " " + argument(args, key)) {
			return slog.LevelDebug
		}
		return slog.LevelWarn
	}
	if strings.Contains(argument(args, "error"), net.ErrClosed.Error()) {
		return slog.LevelDebug // this member stops
	}
	switch level {
	case hclog.Error:
		return slog.LevelError
	case hclog.Warn:
		return slog.LevelWarn
	default:
		return slog.LevelDebug
	}
}

// argument is the value that follows key.
func argument(args []any, key string) string {
	for i := 0; i+1 < len(args); i += 2 {
		if args[i] == key {
			return fmt.Sprint(args[i+1])
		}
	}
	return ""
}

func (l raftLog) Trace(string, ...any)          {}
func (l raftLog) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }
func (l raftLog) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l raftLog) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l raftLog) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }
func (l raftLog) With(args ...any) hclog.Logger {
	return raftLog{l.Logger, l.log.With(stringers(args)...), l.said}
}
func (l raftLog) Named(name string) hclog.Logger { return l }
func (l raftLog) ResetNamed(string) hclog.Logger { return l }

func stringers(args []any) []any {
	out := make([]any, len(args))
	for i, a := range args {
		switch v := a.(type) {
		case hclog.Format:
			if len(v) > 0 {
				out[i] = fmt.Sprintf(v[0].(string), v[1:]...)
			}
		default:
			out[i] = a
		}
	}
	return out
}
