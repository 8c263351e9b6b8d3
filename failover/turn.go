package failover

import (
	"reflect"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// Turn is one turn of the engine over the whole fleet. It is a pure function:
// the same snapshot gives the same effects.
func Turn(s *Snapshot) Effects {
	indexed := *s
	indexed.ix = newIndex(s)
	s = &indexed
	t := &turn{Snapshot: s, moved: map[types.NamespacedName]bool{}}
	t.out.Reported = map[types.NamespacedName]bool{}
	t.out.Detection = Detect(s.Config, s.Previous, s.Fleet, s.Uptime)
	t.plans()
	routed := map[types.NamespacedName]bool{}
	for _, app := range s.Applications {
		services := t.servicesOf(app)
		for _, g := range services {
			routed[key(g)] = true
		}
		t.application(app, services)
	}
	t.orphans()
	if !s.Brief {
		t.care()
	}
	for _, g := range s.Services {
		if !routed[key(g)] {
			t.serve(nil, nil, []*v1alpha1.GlobalService{g})
		}
	}
	return t.out
}

// care is what may wait in a brief turn, beside the assessment of applications.
func (t *turn) care() {
	t.assessPlans()
	for _, d := range t.Datasets {
		if !t.moved[key(d)] {
			t.protect(d)
		}
	}
}

type turn struct {
	*Snapshot
	out Effects
	// covered are applications that the run of a plan moves when their turn comes.
	covered map[types.NamespacedName]string
	// moved are datasets that a run writes in this turn: one writer per object.
	moved map[types.NamespacedName]bool
}

func (t *turn) application(app *v1alpha1.Application, services []*v1alpha1.GlobalService) {
	datasets := t.datasetsOf(app)
	run := t.activeRun(app)
	blocked := ""
	if run != nil {
		t.advance(State{Run: run, App: app, Datasets: datasets, Services: services})
		if next := t.successor(run); next != nil { // it changes nothing but itself until that one rests
			t.advance(State{Run: next, App: app, Datasets: datasets, Services: services})
			run = next
		}
	} else {
		if blocked = t.covered[key(app)]; blocked == "" {
			create, why := Decide(t.Snapshot, t.out.Detection, app)
			blocked = why
			if create != nil {
				t.out.Create = append(t.out.Create, create)
			}
		}
		t.serve(app, datasets, services)
	}
	if drill := t.activeDrill(app); drill != nil {
		t.advance(State{Run: drill, App: app, Datasets: datasets})
	}
	if t.Brief {
		return
	}
	next := app.DeepCopy()
	Assess(t.Snapshot, t.out.Detection, next, datasets, services, run, blocked)
	if differ(&next.Status, &app.Status) {
		t.out.Applications = append(t.out.Applications, next)
	}
}

// plans carries the runs of plans on, and makes those that a loss asks for.
func (t *turn) plans() {
	t.covered = map[types.NamespacedName]string{}
	for _, run := range t.indexed().planRuns {
		if !Finished(run.Status.Phase) {
			x := takePlan(t.Snapshot, t.out.Detection, run)
			next, notes := x.now.Run, x.notes
			t.out.Create, t.out.Hooks = append(t.out.Create, x.create...), append(t.out.Hooks, x.hooks...)
			if differ(&next.Status, &run.Status) {
				t.out.Runs = append(t.out.Runs, next)
				t.out.Notes = append(t.out.Notes, notes...)
			}
			cover(t.covered, run, next)
		}
	}
	t.out.Create = append(t.out.Create, React(t.Snapshot, t.out.Detection, t.covered)...)
}

// assessPlans is the preflight of plans.
func (t *turn) assessPlans() {
	for _, plan := range t.Plans {
		next := plan.DeepCopy()
		AssessPlan(t.Snapshot, t.out.Detection, next)
		if differ(&next.Status, &plan.Status) {
			t.out.Plans = append(t.out.Plans, next)
		}
	}
}

// advance carries one run on and collects what it changed.
func (t *turn) advance(st State) {
	x := take(t.Snapshot, t.out.Detection, st)
	next, notes := x.now, x.notes
	t.out.Commands = append(t.out.Commands, x.commands...)
	t.out.Hooks = append(t.out.Hooks, x.hooks...)
	if differ(&next.Run.Status, &st.Run.Status) {
		t.out.Runs = append(t.out.Runs, next.Run)
		t.out.Notes = append(t.out.Notes, notes...)
	}
	for i, d := range next.Datasets {
		if differ(&d.Status, &st.Datasets[i].Status) {
			tell(t.Snapshot, t.out.Detection, st.Datasets[i], d)
			t.out.Datasets = append(t.out.Datasets, d)
			t.moved[key(d)] = true
		}
	}
	for i, g := range next.Services {
		if differ(&g.Status, &st.Services[i].Status) {
			t.out.Services = append(t.out.Services, g)
		}
	}
}

// orphans ends runs whose application is gone.
func (t *turn) orphans() {
	for _, run := range t.Runs {
		ref := run.Spec.Application
		if run.Spec.ForPlan() || Finished(run.Status.Phase) || t.Snapshot.application(applicationKey(ref)) != nil {
			continue
		}
		next := run.DeepCopy()
		next.Status.Phase, next.Status.Reason = v1alpha1.RunAborted, ReasonNothingToDo
		next.Status.Message = "application " + ref.Namespace + "/" + ref.Name + " does not exist: create it, then start another run"
		t.out.Runs = append(t.out.Runs, next)
	}
}

func (t *turn) protect(d *v1alpha1.Dataset) {
	next, commands := Protect(t.Snapshot, t.out.Detection, d)
	t.out.Commands = append(t.out.Commands, commands...)
	if differ(&next.Status, &d.Status) {
		t.out.Datasets = append(t.out.Datasets, next)
		if reported(&next.Status, &d.Status) {
			t.out.Reported[key(d)] = true
		}
	}
}

// serve keeps the routes in the steady state.
func (t *turn) serve(app *v1alpha1.Application, datasets []*v1alpha1.Dataset, services []*v1alpha1.GlobalService) {
	for _, g := range services {
		next := g.DeepCopy()
		if Route(t.Snapshot, t.out.Detection, app, datasets, next) {
			t.out.Services = append(t.out.Services, next)
		}
	}
}

// differ compares two statuses. Nearly always they are copies of one, and the standard
// library sees that without an allocation for every field; what it does not know is
// that no entries and none are the same.
func differ[T any](a, b *T) bool {
	return !reflect.DeepEqual(a, b) && !equality.Semantic.DeepEqual(a, b)
}
