package scenario

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tripod.dev/tripod/test/multikind/fault"
)

// extra is placed after the backup was taken.
const extra = `
{apiVersion: v1, kind: Namespace, metadata: {name: %[1]s}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: extra, namespace: %[1]s}, data: {made: after the backup}}
---
apiVersion: tripod.dev/v1alpha1
kind: Placement
metadata: {name: extra, namespace: %[1]s}
spec:
  resources: [{apiVersion: v1, kind: ConfigMap, name: extra}]
  clusters: {names: [north-1]}
`

// S11: every member of the hub is lost and a backup is restored that knows neither
// the newest role change nor what was placed last. The hub comes up read-only and
// shows the difference; nothing is deleted or moved; approved, it takes over the
// clusters' epochs and works.
func TestS11TheHubIsRestoredFromAnOldBackup(t *testing.T) {
	f := fleet(t)
	operators := f.registerOperators(t)
	incarnation := f.hubStatus(t).Incarnation
	backup := filepath.Join(t.TempDir(), "hub.backup")
	must(t)(f.Tripodctl(t.Context(), "hub", "backup", backup))
	b := business(t, f)
	f.goOn(t)
	before, err := f.Dataset(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.AwaitTransfers(t.Context(), 100, time.Minute); err != nil {
		t.Fatal(err)
	}
	placed, err := f.placedObjects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.loseEverything(t)
	f.carry(t, backup, hubFolder+"/hub.backup")
	f.begin(t, operators, "restore --backup "+hubFolder+"/hub.backup", incarnation+1)
	f.sealedHub(t, before.Status.Primary)
	if err := f.outlive(t.Context(), 10*time.Second); err != nil { // longer than every lease
		t.Fatal(err)
	}
	nothingDeleted(t, f, placed)
	f.hasExtra(t)
	says(t, must(t)(f.Tripodctl(t.Context(), "hub", "restore", "approve", "--incarnation", fmt.Sprint(incarnation+1), "--hub", f.address(remoteCenter))), "approved by tripod:admin")
	if err := b.AwaitTransfers(t.Context(), 100, 2*time.Minute); err != nil {
		t.Errorf("transfers under the restored hub: %v", err)
	}
	f.rejoin(t)
	if wrong, err := unmoved(f, before)(t.Context()); err != nil || wrong != "" {
		t.Errorf("the restored hub did not take over the newest role: %s %v", wrong, err)
	}
	nothingDeleted(t, f, placed)
	f.hasExtra(t)
	// The copies remember decisions of the hub that was lost; those of this one count.
	if err := f.AwaitProtected(t.Context(), 2*time.Minute, city...); err != nil {
		t.Fatal(err)
	}
	says(t, must(t)(f.Tripodctl(t.Context(), "switchover", "pay/ledger", "--to", city[1-slices.Index(city, before.Status.Primary)])), "Completed")
	audit(t, b)
}

// goOn places one more object and moves the primary: the backup knows of neither.
func (f *Fleet) goOn(t *testing.T) {
	t.Helper()
	t.Cleanup(func() { drop(t, f, "hub", "namespace/"+guest); drop(t, f, "direct-north-1", "namespace/"+guest) })
	must(t)(f.Kubectl(t.Context(), strings.NewReader(fmt.Sprintf(extra, guest)), "--context", "hub", "apply", "-f", "-"))
	must(t)(f.Kubectl(t.Context(), nil, "--context", "direct-north-1", "-n", guest, "wait", "configmap/extra", "--for", "create", "--timeout", "60s"))
	d, err := f.Dataset(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	other := city[1-slices.Index(city, d.Status.Primary)]
	if err := f.AwaitProtected(t.Context(), 2*time.Minute, city...); err != nil {
		t.Fatal(err)
	}
	must(t)(f.Tripodctl(t.Context(), "failover", "pay/ledger", "--to", other))
	if err := f.AwaitProtected(t.Context(), 2*time.Minute, city...); err != nil {
		t.Fatal(err)
	}
}

func (f *Fleet) hasExtra(t *testing.T) {
	t.Helper()
	if _, err := f.Kubectl(t.Context(), nil, "--context", "direct-north-1", "-n", guest, "get", "configmap/extra"); err != nil {
		t.Errorf("what the restored hub does not know was deleted: %v", err)
	}
}

// loseEverything leaves nothing of the hub but a copy of one member's pki.
func (f *Fleet) loseEverything(t *testing.T) {
	t.Helper()
	keep := fmt.Sprintf("%s\ncd %s && mv data/pki . && rm -rf data && mkdir data && mv pki data/", stopped, hubFolder)
	f.inject(t, fault.Fault{Kind: fault.Kill, Process: "hub", Center: remoteCenter})
	for _, center := range city {
		f.loseMember(t, center)
	}
	f.inside(t.Context(), t, remoteCenter, keep)
}

// carry copies a file of this machine into the center of the survivor.
func (f *Fleet) carry(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	command, err := f.Lab.Command(t.Context(), remoteCenter, "bash", "-c", "base64 -d > "+to)
	if err != nil {
		t.Fatal(err)
	}
	command.Stdin = strings.NewReader(base64.StdEncoding.EncodeToString(content))
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// sealedHub: it says what it is, shows what the clusters have otherwise, and takes
// no change.
func (f *Fleet) sealedHub(t *testing.T, primary string) {
	t.Helper()
	var shown string
	err := f.await(t.Context(), 2*time.Minute, "the difference is shown", func(ctx context.Context) (missing string, err error) {
		shown, err = f.Tripodctl(ctx, "hub", "restore", "diff", "--hub", f.address(remoteCenter))
		if err == nil && strings.Contains(shown, "have not reported") {
			return shown, nil
		}
		return "", err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(shown)
	says(t, shown, "read-only until", "Dataset", "pay/ledger-db", "primary "+primary, "the hub takes over the clusters' epoch", "ConfigMap/"+guest+"/extra", "it stays")
	_, err = f.Kubectl(t.Context(), nil, "--context", "hub", "--server", "https://"+f.address(remoteCenter)+":6443", "create", "namespace", guest)
	saysError(t, err, "restored from a backup and is read-only", "tripodctl hub restore diff")
}
