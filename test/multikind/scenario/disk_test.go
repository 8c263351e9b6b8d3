package scenario

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"tripod.dev/tripod/test/multikind/fault"
)

// stopped waits until the member that was killed has let go of its files.
const stopped = `set -e
for i in $(seq 100); do pgrep -x tripod-hub >/dev/null || break; sleep 0.05; done`

// smallDisk is where a hub member's data lies while its disk is small, beside the
// place on the center's disk that it hides.
const smallDisk = stopped + `
data=/var/lib/tripod-hub/data
mkdir -p /run/small
mount -t tmpfs -o size=256m tmpfs /run/small
cp -a $data/. /run/small/
mount --bind /run/small $data`

// largeDisk brings what was written meanwhile back to the center's disk: a member
// must never come back with an older log than it had.
const largeDisk = stopped + `
data=/var/lib/tripod-hub/data
umount $data
rm -rf $data.old && mv $data $data.old
cp -a /run/small $data
umount /run/small && rm -rf $data.old`

// fill leaves eight MiB, less than half of what the store keeps in reserve.
const fill = `cd /run/small && free=$(df --output=avail -k . | tail -1) && dd if=/dev/zero of=filler bs=1K count=$((free - 8192)) status=none`

// A full disk under the member that leads the hub is reported with the path and
// the remedy, nothing that was acknowledged is lost, no primary loses its lease,
// and the hub takes writes again.
func TestFullDiskUnderTheHubsLeader(t *testing.T) {
	const center = remoteCenter
	f := fleet(t)
	b := business(t, f)
	before, err := f.Dataset(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	placed, err := f.placedObjects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.moveHub(t.Context(), t, center, smallDisk)
	t.Cleanup(func() { f.moveHub(context.WithoutCancel(t.Context()), t, center, largeDisk) })
	if err := f.LeadFrom(t.Context(), center); err != nil {
		t.Fatal(err)
	}
	f.inside(t.Context(), t, center, fill)
	err = f.await(t.Context(), time.Minute, "the full disk is reported", func(ctx context.Context) (string, error) {
		text, err := f.Tripodctl(ctx, "hub", "status")
		if err != nil {
			return "", err
		}
		for _, want := range []string{"no space left under /var/lib/tripod-hub/data", "free some or grow the volume"} {
			if !strings.Contains(text, want) {
				return "hub status says\n" + text, nil
			}
		}
		return "", nil
	})
	if err != nil {
		t.Error(err)
	}
	t.Cleanup(func() { dropGuest(t, f, "hub") })
	// Either the full member refuses and says why, or another one leads by now.
	if out, err := f.Kubectl(t.Context(), nil, "--context", "hub", "create", "namespace", guest); err != nil {
		says(t, out+err.Error(), "no space left under /var/lib/tripod-hub/data", "free some or grow the volume")
	}
	// A lease ends in 5 s: that nobody renewed it would show.
	if err := f.Throughout(t.Context(), 10*time.Second, "the primary keeps its role", unmoved(f, before)); err != nil {
		t.Error(err)
	}
	if err := b.AwaitTransfers(t.Context(), 50, time.Minute); err != nil {
		t.Errorf("transfers with a full disk under the hub: %v", err)
	}
	f.inside(t.Context(), t, center, "rm /run/small/filler")
	err = f.await(t.Context(), time.Minute, "the hub takes writes again", func(ctx context.Context) (string, error) {
		_, err := f.Kubectl(ctx, strings.NewReader(fmt.Sprintf(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":%q}}`, guest)),
			"--context", "hub", "apply", "-f", "-")
		return "", err
	})
	if err != nil {
		t.Error(err)
	}
	nothingDeleted(t, f, placed)
	audit(t, b)
}

// moveHub runs a script on the disk of a hub member that is down, and starts it.
func (f *Fleet) moveHub(ctx context.Context, t *testing.T, center, script string) {
	t.Helper()
	if _, err := f.Inject(ctx, fault.Fault{Kind: fault.Kill, Process: "hub", Center: center}); err != nil {
		t.Error(err)
	}
	f.inside(ctx, t, center, script)
	if err := f.Repair(ctx); err != nil {
		t.Error(err)
	}
}

// inside runs a script in a center and returns what it prints.
func (f *Fleet) inside(ctx context.Context, t *testing.T, center, script string) string {
	t.Helper()
	command, err := f.Lab.Command(ctx, center, "bash", "-c", script)
	if err != nil {
		t.Fatal(err)
	}
	var complaint bytes.Buffer
	command.Stderr = &complaint
	out, err := command.Output()
	if err != nil {
		t.Fatalf("in %s: %v: %s%s", center, err, out, complaint.String())
	}
	return string(out)
}
