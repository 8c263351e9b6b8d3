package scenario

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"tripod.dev/tripod/test/multikind/fault"
	"tripod.dev/tripod/test/multikind/lab"
)

// victim is one kind of process, killed where the primary is or in the center of
// its synchronous standby.
type victim struct {
	process   string
	atPrimary bool
}

// kills is every kind of process of the fleet. Those of one step die at once:
// they are in different centers, or do not need each other.
var kills = [][]victim{
	{{"postgres", true}},
	{{"postgres", false}},
	{{"guard", true}, {"scheduler", false}},
	{{"agent", true}, {"controller-manager", false}},
	{{"hub", true}, {"proxy", false}},
	{{"apiserver", true}, {"kubelet", false}},
	{{"containerd", true}, {"etcd", false}},
}

// Killing any one process with SIGKILL, and `multikind up` again, ends in a
// healthy fleet with the same data.
func TestAnyProcessKilled(t *testing.T) {
	f := fleet(t)
	placed, err := f.placedObjects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := business(t, f)
	if err := b.AwaitTransfers(t.Context(), 50, time.Minute); err != nil {
		t.Fatal(err)
	}
	for _, step := range kills {
		t.Run(nameOf(step), func(t *testing.T) { killAndRepair(t, b, step) })
	}
	audit(t, b)
	nothingDeleted(t, f, placed)
}

func nameOf(step []victim) string {
	var names []string
	for _, v := range step {
		where := "the primary's center"
		if !v.atPrimary {
			where = "the standby's center"
		}
		names = append(names, v.process+" in "+where)
	}
	return strings.Join(names, ", ")
}

func killAndRepair(t *testing.T, b *Business, step []victim) {
	f := b.fleet
	before, err := f.Dataset(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	standby := slices.IndexFunc(before.Status.SyncSet, func(c string) bool { return c != before.Status.Primary })
	if standby < 0 {
		t.Fatalf("the sync set %v holds no standby", before.Status.SyncSet)
	}
	var last fault.Effect
	for _, v := range step {
		center := before.Status.SyncSet[standby]
		if v.atPrimary {
			center = before.Status.Primary
		}
		if last, err = f.Inject(t.Context(), fault.Fault{Kind: fault.Kill, Process: v.process, Center: center}); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Repair(t.Context()); err != nil {
		t.Fatalf("repair: %v", err)
	}
	if err := f.awaitProcesses(t.Context()); err != nil {
		t.Error(err)
	}
	if err := f.AwaitClusters(t.Context()); err != nil {
		t.Error(err)
	}
	if err := b.awaitAfter(t.Context(), last.Monotonic, 2*time.Minute); err != nil {
		t.Errorf("transfers after the kill: %v", err)
	}
	if err := b.AwaitTransfers(t.Context(), 50, time.Minute); err != nil {
		t.Error(err)
	}
	if err := f.AwaitProtected(t.Context(), 2*time.Minute, before.Status.SyncSet...); err != nil {
		t.Error(err)
	}
	if err := f.AwaitApplication(t.Context(), 2*time.Minute); err != nil {
		t.Error(err)
	}
}

// awaitProcesses waits until every center runs one process of each kind.
func (f *Fleet) awaitProcesses(ctx context.Context) error {
	kinds := map[string]bool{}
	for _, step := range kills {
		for _, v := range step {
			kinds[v.process] = true
		}
	}
	return f.await(ctx, 2*time.Minute, "every process runs in every center", func(ctx context.Context) (string, error) {
		status, err := f.Lab.Status(ctx)
		if err != nil {
			return "", err
		}
		var missing []string
		for _, center := range status.Centers {
			for kind := range kinds {
				if !slices.ContainsFunc(center.Processes, func(p lab.ProcessStatus) bool { return p.Name == kind && p.State == lab.Running }) {
					missing = append(missing, fmt.Sprintf("%s in %s", kind, center.Name))
				}
			}
		}
		return strings.Join(missing, ", "), nil
	})
}
