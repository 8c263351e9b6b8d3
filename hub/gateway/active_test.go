package gateway

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

func datasetAt(name, primary string, phase v1alpha1.DatasetPhase) *v1alpha1.Dataset {
	return &v1alpha1.Dataset{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "pay"},
		Status: v1alpha1.DatasetStatus{Phase: phase, Primary: primary, PreviousPrimary: "old-1", Epoch: 1}}
}

func serviceAt(name string, active ...string) *v1alpha1.GlobalService {
	return &v1alpha1.GlobalService{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "pay"}, Status: v1alpha1.GlobalServiceStatus{Active: active}}
}

func TestWhereAnApplicationIsActive(t *testing.T) {
	serials := map[string]uint64{"north-1": 11, "north-2": 12}
	tests := map[string]struct {
		datasets []*v1alpha1.Dataset
		declared []string
		services []*v1alpha1.GlobalService
		want     location
		unsure   string // why nothing is passed on
	}{
		"a steady primary": {datasets: []*v1alpha1.Dataset{datasetAt("db", "north-1", v1alpha1.DatasetSteady)},
			want: location{cluster: "north-1", serial: 11}},
		"a primary that is being closed is read and not written": {datasets: []*v1alpha1.Dataset{datasetAt("db", "north-1", v1alpha1.DatasetClosing)},
			want: location{cluster: "north-1", serial: 11, unsettled: "dataset db is being closed in cluster north-1"}},
		"while the old one is fenced, the coming one is read": {datasets: []*v1alpha1.Dataset{datasetAt("db", "north-2", v1alpha1.DatasetFencing)},
			want: location{cluster: "north-2", serial: 12, unsettled: "dataset db is being fenced in cluster old-1 and is to move to north-2"}},
		"a promotion": {datasets: []*v1alpha1.Dataset{datasetAt("db", "north-2", v1alpha1.DatasetPromoting)},
			want: location{cluster: "north-2", serial: 12, unsettled: "dataset db is being promoted in cluster north-2"}},
		"two datasets that are not together": {datasets: []*v1alpha1.Dataset{datasetAt("db", "north-2", v1alpha1.DatasetSteady), datasetAt("queue", "north-1", v1alpha1.DatasetSteady)},
			want: location{cluster: "north-2", serial: 12, unsettled: "dataset queue is still in cluster north-1"}},
		"a dataset without a primary": {datasets: []*v1alpha1.Dataset{datasetAt("db", "", v1alpha1.DatasetForming)}, unsure: "has no primary yet"},
		"a dataset that is not there": {declared: []string{"db"}, unsure: `dataset "db" does not exist`},
		"a cluster that is not there": {datasets: []*v1alpha1.Dataset{datasetAt("db", "west-1", v1alpha1.DatasetSteady)}, unsure: `"west-1", which is not in this fleet`},
		"no dataset, a service":       {services: []*v1alpha1.GlobalService{serviceAt("www", "north-2")}, want: location{cluster: "north-2", serial: 12}},
		"a service in two clusters": {services: []*v1alpha1.GlobalService{serviceAt("www", "north-2", "north-1")},
			want: location{cluster: "north-2", serial: 12, unwritable: "it is active in several clusters at once (north-2, north-1): write its templates to the hub, or to one of them at /clusters/NAME"}},
		"nothing that tells": {unsure: "its place is not decided"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			app := &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: "ledger", Namespace: "pay"}}
			app.Spec.Datasets = test.declared
			for _, d := range test.datasets {
				app.Spec.Datasets = append(app.Spec.Datasets, d.Name)
			}
			got, err := locate(Standing{Application: app, Datasets: test.datasets, Services: test.services, Serials: serials})
			if test.unsure != "" {
				if err == nil || !strings.Contains(err.Error(), test.unsure) {
					t.Fatalf("got %+v, %v; want an error with %q", got, err, test.unsure)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(location{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}
