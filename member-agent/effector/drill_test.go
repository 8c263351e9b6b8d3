package effector_test

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tripod.dev/tripod/failover/guard/postgresql"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// A real standby is copied, and the copy promoted and probed, as in the drill's pod.
// Replication goes on meanwhile, and neither side learns of it.
func TestADrillOfARealStandby(t *testing.T) {
	f := newFleet(t, "north-1", "north-2")
	f.commit(func() { f.primary, f.epoch = "north-1", 1 })
	f.powerOn("north-1")
	f.powerOn("north-2")
	f.must("north-1", agentv1.Verb_VERB_PROMOTE, nil)
	f.must("north-2", agentv1.Verb_VERB_FOLLOW, nil)
	f.waitState("north-2", "Streaming")
	conn, err := f.connect("north-1")
	must(t, err)
	defer conn.Close(context.Background())
	if _, err := conn.Exec(context.Background(), "CREATE TABLE drilled AS SELECT generate_series(1, 1000) AS n"); err != nil {
		t.Fatal(err)
	}
	replica, err := f.connect("north-2")
	must(t, err)
	defer replica.Close(context.Background())
	wait(t, 30*time.Second, "the standby shows what was written", func() bool {
		var n int
		return replica.QueryRow(context.Background(), "SELECT count(*) FROM drilled").Scan(&n) == nil && n == 1000
	})
	standby := f.centers["north-2"]
	source := filepath.Join(f.dir, "drill")
	result := filepath.Join(f.dir, "result")
	drill := exec.Command("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", guardBinary, "drill", "--source", standby.address,
		"--volume", source, "--secrets", filepath.Join(standby.dir, "secrets"), "--result", result, "--port", "5499", "--timeout", "60s")
	before := f.observed("north-2").GetTimeline()
	out, err := drill.CombinedOutput()
	if err != nil {
		t.Fatalf("drill: %v\n%s", err, out)
	}
	var got postgresql.Rehearsal
	text, err := os.ReadFile(result)
	must(t, err)
	must(t, json.Unmarshal(text, &got))
	if got.Rows < 1000 || got.Tables < 1 {
		t.Errorf("measured %s", text)
	}
	t.Logf("measured %s", text)
	if c, err := net.DialTimeout("tcp", "127.0.0.1:5499", time.Second); err == nil {
		c.Close()
		t.Error("something listens on the copy's port")
	}
	if o := f.observed("north-2"); o.GetState() != "Streaming" || o.GetTimeline() != before {
		t.Errorf("the standby is %s on timeline %d after the drill, was on %d", o.GetState(), o.GetTimeline(), before)
	}
	conf, err := os.ReadFile(filepath.Join(source, "tripod", "postgresql.conf"))
	must(t, err)
	if !strings.HasSuffix(strings.TrimSpace(string(conf)), "ssl = off") {
		t.Error("what keeps the copy apart is not the last word of its configuration")
	}
}
