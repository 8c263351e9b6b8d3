package store

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A member that is away for a night must not fill the disk of the others with
// the same line, and an ordinary election must not look like a failure.
func TestRaftLogIsCalm(t *testing.T) {
	var out bytes.Buffer
	plain := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	logger := raftLogTo(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: plain}))).(raftLog)
	now := time.Unix(0, 0)
	logger.said.now = func() time.Time { return now }
	for range 3 {
		logger.Error("failed to heartbeat to", "peer", "192.0.2.2:6445")
		logger.Error("failed to heartbeat to", "peer", "192.0.2.3:6445")
	}
	now = now.Add(repeatAfter)
	logger.With("term", 3).Error("failed to heartbeat to", "peer", "192.0.2.2:6445")
	logger.Warn("rejecting pre-vote request since we have a leader", "from", "192.0.2.2:6445")
	logger.Warn("heartbeat timeout reached, starting election")
	logger.Warn("heartbeat timeout reached, starting election")
	logger.Error("failed to commit logs", "error", "no space left on device")
	logger.Error("failed to commit logs", "error", "no space left on device")
	want := []string{
		`level=WARN msg="failed to heartbeat to" peer=192.0.2.2:6445`,
		`level=WARN msg="failed to heartbeat to" peer=192.0.2.3:6445`,
		`level=WARN msg="failed to heartbeat to" term=3 peer=192.0.2.2:6445`,
		`level=INFO msg="heartbeat timeout reached, starting election"`,
		`level=ERROR msg="failed to commit logs" error="no space left on device"`,
		`level=ERROR msg="failed to commit logs" error="no space left on device"`,
	}
	if diff := cmp.Diff(want, strings.Split(strings.TrimSpace(out.String()), "\n")); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}
