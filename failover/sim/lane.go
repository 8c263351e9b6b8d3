package sim

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// lane is one application with its dataset, the copies of it, and its judge. What
// each lane has of an agent dies and lives with that of the others: one cluster is
// one agent, whose heartbeats are sent lane by lane.
type lane struct {
	id    int
	sites [centers]*site
	check *checker
}

// newLane has no sites yet.
func newLane(w *world, id int) *lane {
	l := &lane{id: id}
	l.check = &checker{w: w, lane: l, result: &w.result, promoted: map[int64]int{}, lossy: map[int64]bool{}, excused: map[int]bool{}, took: map[string]bool{},
		lastRenewal: map[string]time.Duration{}, renewedBefore: map[string]time.Duration{}, back: map[string]time.Duration{},
		lapsed: map[string]time.Duration{}}
	return l
}

// maxLanes bounds the lanes of one world.
const maxLanes = 4

// names of a lane's application and its service, and of its dataset: those of the
// first have no number.
var appNames, datasetNames = named("app"), named("db")

func named(kind string) (all [maxLanes]types.NamespacedName) {
	for i := range all {
		all[i] = types.NamespacedName{Namespace: "pay", Name: kind}
		if i > 0 {
			all[i].Name = fmt.Sprintf("%s-%d", kind, i)
		}
	}
	return all
}

func (l *lane) application() types.NamespacedName { return appNames[l.id] }
func (l *lane) dataset() types.NamespacedName     { return datasetNames[l.id] }

// laneOf finds the lane of an application or a dataset by its name.
func laneOf(name string) int {
	for i := range maxLanes {
		if name == datasetNames[i].Name || name == appNames[i].Name {
			return i
		}
	}
	panic("sim: no lane has " + name)
}

// unit is what the hub has committed of a lane.
type unit struct {
	dataset *v1alpha1.Dataset
	app     *v1alpha1.Application
	service *v1alpha1.GlobalService
}

// unit returns where an object's lane keeps it.
func (o *objects) unit(obj metav1.Object) *unit {
	i := laneOf(obj.GetName())
	for len(o.units) <= i {
		o.units = append(o.units, unit{})
	}
	return &o.units[i]
}

// first is the only lane where there is one.
func (w *world) first() unit { return w.truth.units[0] }

func (c *checker) unit() unit { return c.w.truth.units[c.lane.id] }

// agents does one thing to all that a cluster's agent is.
func (w *world) agents(i int, do func(*site)) {
	for _, l := range w.lanes {
		do(l.sites[i])
	}
}

// judge hands one committed change to whom it concerns.
func (w *world) judge(old, obj metav1.Object) {
	switch x := obj.(type) {
	case *v1alpha1.Dataset:
		w.lanes[laneOf(x.Name)].check.committed(old, obj)
	case *v1alpha1.RecoveryRun:
		o, _ := old.(*v1alpha1.RecoveryRun)
		w.plans.committed(o, x)
		if !x.Spec.ForPlan() {
			w.lanes[laneOf(x.Spec.Application.Name)].check.committed(old, obj)
		}
	}
}
