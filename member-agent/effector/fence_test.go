package effector

import (
	"path/filepath"
	"strings"
	"testing"

	"tripod.dev/tripod/failover/driver"
	"tripod.dev/tripod/failover/driver/postgresql"
	"tripod.dev/tripod/failover/driver/socket"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// What no guard stops may acknowledge what nobody else holds: it gets no dataset that
// is to lose nothing.
func TestADriverWithoutAFenceGetsNoZeroLoss(t *testing.T) {
	e := &Effector{cfg: Config{Cluster: "north-1"}, drivers: map[string]driver.Driver{postgresql.Name: &postgresql.Driver{}}}
	if err := e.beside(map[string]string{"shelf": filepath.Join(t.TempDir(), "s")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.drivers["shelf"].(*socket.Client).Close)
	for name, protections := range map[string]map[agentv1.Protection]string{
		"shelf": {agentv1.Protection_PROTECTION_ZERO_LOSS: "has no fence by time", agentv1.Protection_PROTECTION_MAX_AVAILABILITY: "",
			agentv1.Protection_PROTECTION_ASYNCHRONOUS: ""},
		postgresql.Name: {agentv1.Protection_PROTECTION_ZERO_LOSS: ""},
	} {
		for protection, want := range protections {
			_, err := e.driver(&agentv1.RoleGrant{Driver: name, Protection: protection, Dataset: &agentv1.DatasetKey{Namespace: "pay", Name: "db"}})
			if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "pay/db")) {
				t.Errorf("%s with %v: %v, want %q", name, protection, err, want)
			}
		}
	}
}
