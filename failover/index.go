package failover

import (
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// index finds the objects of one snapshot by name: a turn over a thousand
// applications must not look through a thousand objects for each.
type index struct {
	applications map[types.NamespacedName]*v1alpha1.Application
	datasets     map[types.NamespacedName]*v1alpha1.Dataset
	services     map[types.NamespacedName]*v1alpha1.GlobalService
	// owner is the application of each dataset.
	owner map[types.NamespacedName]*v1alpha1.Application
	runs  map[string]*v1alpha1.RecoveryRun
	// runsOf are the runs of an application, in the order of the snapshot.
	runsOf   map[types.NamespacedName][]*v1alpha1.RecoveryRun
	planRuns []*v1alpha1.RecoveryRun
	// declined are the moves of plans' runs, made by the engine, that a person
	// did not want.
	declined  map[types.NamespacedName]declined
	approvals map[string][]*v1alpha1.Approval
	graph     *graph // made when it is asked for
}

func newIndex(s *Snapshot) *index {
	ix := &index{
		applications: make(map[types.NamespacedName]*v1alpha1.Application, len(s.Applications)),
		datasets:     make(map[types.NamespacedName]*v1alpha1.Dataset, len(s.Datasets)),
		services:     make(map[types.NamespacedName]*v1alpha1.GlobalService, len(s.Services)),
		owner:        make(map[types.NamespacedName]*v1alpha1.Application, len(s.Datasets)),
		runs:         make(map[string]*v1alpha1.RecoveryRun, len(s.Runs)),
		runsOf:       make(map[types.NamespacedName][]*v1alpha1.RecoveryRun, len(s.Applications)),
		declined:     map[types.NamespacedName]declined{},
		approvals:    make(map[string][]*v1alpha1.Approval, len(s.Approvals)),
	}
	for _, app := range s.Applications {
		ix.applications[key(app)] = app
		for _, name := range app.Spec.Datasets {
			d := types.NamespacedName{Namespace: app.Namespace, Name: name}
			if ix.owner[d] == nil {
				ix.owner[d] = app
			}
		}
	}
	for _, d := range s.Datasets {
		ix.datasets[key(d)] = d
	}
	for _, g := range s.Services {
		ix.services[key(g)] = g
	}
	for _, r := range s.Runs {
		ix.runs[r.Name] = r
		if r.Spec.ForPlan() {
			ix.planRun(r)
			continue
		}
		app := applicationKey(r.Spec.Application)
		ix.runsOf[app] = append(ix.runsOf[app], r)
	}
	for _, a := range s.Approvals {
		ix.approvals[a.Spec.Run] = append(ix.approvals[a.Spec.Run], a)
	}
	return ix
}

// declined is a role change that a person did not want.
type declined struct {
	epoch int64
	run   string
}

func (ix *index) planRun(r *v1alpha1.RecoveryRun) {
	ix.planRuns = append(ix.planRuns, r)
	if r.Spec.Requester != "" {
		return
	}
	for i := range r.Status.Applications {
		a := &r.Status.Applications[i]
		name := entryKey(a)
		if a.State == v1alpha1.ApplicationFailed && (a.Reason == ReasonRejected || a.Reason == ReasonAborted) && a.Epoch >= ix.declined[name].epoch {
			ix.declined[name] = declined{epoch: a.Epoch, run: r.Name}
		}
	}
}

// indexed returns the index that Turn has made, or one for this question alone.
func (s *Snapshot) indexed() *index {
	if s.ix != nil {
		return s.ix
	}
	return newIndex(s)
}

func applicationKey(ref v1alpha1.ApplicationReference) types.NamespacedName {
	return types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}
}

// entryKey is the application of an entry in a plan's run.
func entryKey(a *v1alpha1.RunApplication) types.NamespacedName {
	return types.NamespacedName{Namespace: a.Namespace, Name: a.Name}
}

func (s *Snapshot) application(name types.NamespacedName) *v1alpha1.Application {
	return s.indexed().applications[name]
}

func (s *Snapshot) dataset(name types.NamespacedName) *v1alpha1.Dataset {
	return s.indexed().datasets[name]
}

func (s *Snapshot) run(name string) *v1alpha1.RecoveryRun { return s.indexed().runs[name] }

func (s *Snapshot) applicationOf(d *v1alpha1.Dataset) *v1alpha1.Application {
	return s.indexed().owner[key(d)]
}

func (s *Snapshot) datasetsOf(app *v1alpha1.Application) []*v1alpha1.Dataset {
	ix := s.indexed()
	var all []*v1alpha1.Dataset
	for _, name := range app.Spec.Datasets {
		if d := ix.datasets[types.NamespacedName{Namespace: app.Namespace, Name: name}]; d != nil {
			all = append(all, d)
		}
	}
	return all
}

func (s *Snapshot) servicesOf(app *v1alpha1.Application) []*v1alpha1.GlobalService {
	ix := s.indexed()
	var all []*v1alpha1.GlobalService
	for _, name := range app.Spec.Services {
		if g := ix.services[types.NamespacedName{Namespace: app.Namespace, Name: name}]; g != nil && !slices.Contains(all, g) {
			all = append(all, g)
		}
	}
	return all
}

// activeRun is the oldest unfinished move of an application: one at a time. A
// drill is none.
func (s *Snapshot) activeRun(app *v1alpha1.Application) *v1alpha1.RecoveryRun {
	return s.oldest(app, func(r *v1alpha1.RecoveryRun) bool { return r.Spec.Action != v1alpha1.ActionDrill })
}

// oldest is the first of an application's unfinished runs of a kind.
func (s *Snapshot) oldest(app *v1alpha1.Application, kind func(*v1alpha1.RecoveryRun) bool) *v1alpha1.RecoveryRun {
	var oldest *v1alpha1.RecoveryRun
	for _, r := range s.indexed().runsOf[key(app)] {
		if Finished(r.Status.Phase) || !kind(r) {
			continue
		}
		if oldest == nil || r.CreationTimestamp.Before(&oldest.CreationTimestamp) ||
			r.CreationTimestamp.Equal(&oldest.CreationTimestamp) && r.Name < oldest.Name {
			oldest = r
		}
	}
	return oldest
}

// lastRun is the newest move of an application.
func (s *Snapshot) lastRun(app *v1alpha1.Application) *v1alpha1.RecoveryRun {
	var last *v1alpha1.RecoveryRun
	for _, r := range s.indexed().runsOf[key(app)] {
		if r.Spec.Action == v1alpha1.ActionDrill {
			continue
		}
		if last == nil || last.CreationTimestamp.Before(&r.CreationTimestamp) || last.CreationTimestamp.Equal(&r.CreationTimestamp) && last.Name < r.Name {
			last = r
		}
	}
	return last
}
