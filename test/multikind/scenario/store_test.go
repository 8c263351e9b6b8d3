package scenario

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tripod.dev/tripod/test/multikind/fault"
	"tripod.dev/tripod/test/multikind/lab"
)

const sleepers = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: sleepers, namespace: guest}
spec:
  replicas: 3
  selector: {matchLabels: {app: sleepers}}
  template:
    metadata: {labels: {app: sleepers}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: sleeper, image: "tripod.dev/pause:dev", imagePullPolicy: Never}
`

// An unmodified kube-apiserver, controller manager, scheduler and kubelet work on
// the hub's store in etcd's place: pods run, the store is killed, everything is
// still there, and what is deleted is gone with all that it owned.
func TestAClusterOnTheHubsStore(t *testing.T) {
	record(t)
	const center = "east-1"
	start := time.Now()
	tell := func(line string) { fmt.Printf("%7.1fs  %s\n", time.Since(start).Seconds(), line) }
	bin, err := filepath.Abs("../../../bin")
	if err != nil {
		t.Fatal(err)
	}
	noHub := false
	f := &Fleet{config: lab.Config{Name: labName() + "-store", BinDir: bin, Nodes: lab.NodesReal, Centers: []string{center}, Hub: &noHub, Store: lab.StoreTripod}, tell: tell}
	t.Cleanup(func() {
		if err := lab.Down(context.WithoutCancel(t.Context()), "", f.config.Name, tell); err != nil {
			t.Error(err)
		}
	})
	if err := f.Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	kubectl := func(input string, arguments ...string) string {
		t.Helper()
		return must(t)(f.Kubectl(t.Context(), strings.NewReader(input), append([]string{"--context", "direct-" + center}, arguments...)...))
	}
	kubectl("", "create", "namespace", guest)
	kubectl(strings.ReplaceAll(sleepers, "namespace: guest", "namespace: "+guest), "apply", "-f", "-")
	kubectl("", "-n", guest, "rollout", "status", "deployment/sleepers", "--timeout", "60s")
	const uids = `jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.uid}{"\n"}{end}`
	before := kubectl("", "-n", guest, "get", "deployments,replicasets,pods", "-o", uids)

	if _, err := f.Inject(t.Context(), fault.Fault{Kind: fault.Kill, Process: "etcd", Center: center}); err != nil {
		t.Fatal(err)
	}
	if err := f.Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := kubectl("", "-n", guest, "get", "deployments,replicasets,pods", "-o", uids); after != before {
		t.Errorf("before the store was killed there were\n%safterwards\n%s", before, after)
	}
	kubectl("", "-n", guest, "scale", "deployment/sleepers", "--replicas", "5")
	kubectl("", "-n", guest, "rollout", "status", "deployment/sleepers", "--timeout", "60s")
	kubectl("", "delete", "namespace", guest, "--timeout", "90s")
	if left := kubectl("", "get", "pods", "-A", "-o", "name"); strings.Contains(left, "sleepers") {
		t.Errorf("after the namespace was deleted there are still\n%s", left)
	}
}
