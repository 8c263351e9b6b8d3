package store

import (
	"context"
	"fmt"
	"log/slog"

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
	log *slog.Logger
}

func raftLogTo(log *slog.Logger) hclog.Logger {
	return raftLog{Logger: hclog.NewNullLogger(), log: log}
}

func (l raftLog) Log(level hclog.Level, msg string, args ...any) {
	switch level {
	case hclog.Error:
		l.log.Error(msg, stringers(args)...)
	case hclog.Warn:
		l.log.Warn(msg, stringers(args)...)
	default:
		l.log.Debug(msg, stringers(args)...)
	}
}

func (l raftLog) Trace(string, ...any)          {}
func (l raftLog) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }
func (l raftLog) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l raftLog) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l raftLog) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }
func (l raftLog) With(args ...any) hclog.Logger {
	return raftLog{l.Logger, l.log.With(stringers(args)...)}
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
