package hub

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/hub/term"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

func TestDatasetDifferences(t *testing.T) {
	key := types.NamespacedName{Namespace: "pay", Name: "ledger"}
	dataset := &v1alpha1.Dataset{
		ObjectMeta: metav1.ObjectMeta{Namespace: "pay", Name: "ledger"},
		Spec:       v1alpha1.DatasetSpec{Members: []v1alpha1.DatasetMember{{Cluster: "n1"}, {Cluster: "n2"}, {Cluster: "s1"}}},
		Status:     v1alpha1.DatasetStatus{Epoch: 5, Primary: "n1"},
	}
	type copies map[string]*agentv1.DatasetObservation
	primary := func(epoch int64, waitsFor ...string) *agentv1.DatasetObservation {
		return &agentv1.DatasetObservation{Role: agentv1.Role_ROLE_PRIMARY, Epoch: epoch, HeldEpoch: epoch, HeldSyncSet: waitsFor}
	}
	stopped := func(o *agentv1.DatasetObservation) *agentv1.DatasetObservation {
		o.Role = agentv1.Role_ROLE_NONE
		return o
	}
	replica := func(epoch int64) *agentv1.DatasetObservation {
		return &agentv1.DatasetObservation{Role: agentv1.Role_ROLE_REPLICA, Epoch: epoch}
	}
	tests := map[string]struct {
		seen   copies
		adopts []adoption
		blocks bool
	}{
		"nobody reports":                         {seen: copies{}},
		"the epoch is the hub's":                 {seen: copies{"n1": primary(5, "n2"), "n2": replica(5)}},
		"an older copy is no news":               {seen: copies{"n1": primary(5), "s1": replica(3)}},
		"a newer primary is taken over":          {seen: copies{"n1": replica(7), "n2": primary(7, "n1")}, adopts: []adoption{{Dataset: key, Epoch: 7, Primary: "n2", SyncSet: []string{"n2", "n1"}}}},
		"one that has stopped meanwhile, too":    {seen: copies{"n1": replica(7), "n2": stopped(primary(7, "n1"))}, adopts: []adoption{{Dataset: key, Epoch: 7, Primary: "n2", SyncSet: []string{"n2", "n1"}}}},
		"the old primary is not the newer one's": {seen: copies{"n1": primary(5), "n2": primary(7)}, adopts: []adoption{{Dataset: key, Epoch: 7, Primary: "n2", SyncSet: []string{"n2"}}}},
		"a newer epoch without a primary blocks": {seen: copies{"n1": primary(5), "n2": replica(7)}, blocks: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			observed := map[term.CopyKey]term.Observation{}
			for cluster, o := range test.seen {
				observed[term.CopyKey{Dataset: key, Cluster: cluster}] = term.Observation{DatasetObservation: o}
			}
			found, adopts := datasetDifferences([]*v1alpha1.Dataset{dataset}, observed)
			if diff := cmp.Diff(test.adopts, adopts); diff != "" {
				t.Errorf("adoptions (-want +got):\n%s", diff)
			}
			if blocks := len(found) == 1 && found[0].Blocks; blocks != test.blocks || len(found) != len(test.adopts) && !blocks {
				t.Errorf("differences %+v", found)
			}
		})
	}
}

func TestObjectDifferencesNeverDeleteWhatTheHubDoesNotKnow(t *testing.T) {
	object := func(name string) *agentv1.ObjectKey {
		return &agentv1.ObjectKey{ApiVersion: "v1", Kind: "ConfigMap", Namespace: "shop", Name: name}
	}
	found := objectDifferences("n1", &agentv1.DesiredState{
		Objects: []*agentv1.DesiredObject{{Key: object("same"), Revision: 3}, {Key: object("older"), Revision: 4}, {Key: object("missing"), Revision: 5}},
		Burials: []*agentv1.Burial{{Key: object("buried"), Tombstone: "shop/x"}, {Key: object("gone"), Tombstone: "shop/y"}},
	}, &agentv1.AppliedStatus{Objects: []*agentv1.AppliedObject{
		{Key: object("same"), Revision: 3}, {Key: object("older"), Revision: 9}, {Key: object("unknown"), Revision: 8}, {Key: object("buried"), Revision: 8},
	}})
	got := map[string]string{}
	for _, d := range found {
		got[d.Name] = d.Consequence
	}
	want := map[string]string{
		"ConfigMap/shop/older":   "it is set back to what the backup says",
		"ConfigMap/shop/missing": "it is applied; an object of that name is updated",
		"ConfigMap/shop/buried":  "it is DELETED; if that is wrong, delete the tombstone first: kubectl delete tombstones.tripod.dev",
		"ConfigMap/shop/unknown": "it stays, and is neither repaired nor deleted until it is placed again",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
