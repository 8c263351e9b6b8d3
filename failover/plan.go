package failover

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// Reasons why a plan cannot be carried out as it is.
const (
	ReasonPlanMissing  = "PlanMissing"
	ReasonPlanSelector = "PlanSelector"
	ReasonCycle        = "DependencyCycle"
	ReasonWaveOrder    = "WaveOrder"
)

// refusal is why something is not begun: a reason of a run's status and its
// message. It is no error of the engine, and goes to whoever wrote the plan.
type refusal struct{ reason, message string }

// matcher is a selector of applications, made once for many of them. The zero
// matcher selects all.
type matcher struct {
	labels labels.Selector
	names  map[types.NamespacedName]bool
}

func newMatcher(s v1alpha1.ApplicationSelector) (matcher, error) {
	m := matcher{}
	if s.LabelSelector == nil && len(s.Names) == 0 {
		return m, nil
	}
	m.names = make(map[types.NamespacedName]bool, len(s.Names))
	for _, ref := range s.Names {
		m.names[applicationKey(ref)] = true
	}
	if s.LabelSelector != nil {
		selector, err := metav1.LabelSelectorAsSelector(s.LabelSelector)
		if err != nil {
			return m, fmt.Errorf("label selector: %w", err)
		}
		m.labels = selector
	}
	return m, nil
}

func (m matcher) selects(app *v1alpha1.Application) bool {
	if m.names == nil {
		return true
	}
	return m.names[key(app)] || m.labels != nil && m.labels.Matches(labels.Set(app.Labels))
}

// runbook is a plan that has been read: who is in it, and in which wave.
type runbook struct {
	applications matcher
	waves        []v1alpha1.RunWave
	matchers     []matcher
}

// restWave is the name of the wave of what no wave selects.
const restWave = "rest"

// read makes a runbook of a plan; of none it is one wave of everything.
func read(plan *v1alpha1.RecoveryPlan) (runbook, *refusal) {
	b := runbook{}
	if plan == nil {
		b.waves = []v1alpha1.RunWave{{Name: restWave}}
		return b, nil
	}
	var err error
	if b.applications, err = newMatcher(plan.Spec.Applications); err != nil {
		return b, &refusal{ReasonPlanSelector, fmt.Sprintf("plan %s, applications: %v", plan.Name, err)}
	}
	for _, w := range plan.Spec.Waves {
		m, err := newMatcher(w.Applications)
		if err != nil {
			return b, &refusal{ReasonPlanSelector, fmt.Sprintf("plan %s, wave %s: %v", plan.Name, w.Name, err)}
		}
		b.matchers = append(b.matchers, m)
		b.waves = append(b.waves, v1alpha1.RunWave{Name: w.Name, Parallelism: w.Parallelism})
	}
	b.waves = append(b.waves, v1alpha1.RunWave{Name: restWave})
	return b, nil
}

func (b runbook) waveOf(app *v1alpha1.Application) int32 {
	for i, m := range b.matchers {
		if m.selects(app) {
			return int32(i)
		}
	}
	return int32(len(b.waves) - 1)
}

// order plans applications that move together: by wave, then dependencies first.
// It refuses what has no order: applications that depend on each other, and one
// that depends on an application of a later wave.
func (b runbook) order(g *graph, apps []*v1alpha1.Application) ([]v1alpha1.RunApplication, *refusal) {
	waves := make(map[types.NamespacedName]int32, len(apps))
	for _, app := range apps {
		waves[key(app)] = b.waveOf(app)
	}
	member := func(name types.NamespacedName) bool { _, in := waves[name]; return in }
	depth := map[types.NamespacedName]int{}
	planned := make([]v1alpha1.RunApplication, 0, len(apps))
	for _, app := range apps {
		name := key(app)
		if g.circle[name] != 0 {
			return nil, &refusal{ReasonCycle, fmt.Sprintf("applications depend on each other in a circle: %s; take one of these out of spec.dependsOn", g.cycle(name))}
		}
		a := v1alpha1.RunApplication{Namespace: app.Namespace, Name: app.Name, Wave: waves[name], Attempt: 1}
		for _, dep := range g.nearest(name, member) {
			if waves[dep] > a.Wave {
				return nil, &refusal{ReasonWaveOrder, fmt.Sprintf("%s of wave %s depends on %s, which is in the later wave %s: put it into the same wave or an earlier one",
					name, b.waves[a.Wave].Name, dep, b.waves[waves[dep]].Name)}
			}
			a.After = append(a.After, dep.String())
		}
		g.depth(name, depth)
		planned = append(planned, a)
	}
	slices.SortFunc(planned, func(p, q v1alpha1.RunApplication) int {
		return cmp.Or(cmp.Compare(p.Wave, q.Wave), cmp.Compare(depth[entryKey(&p)], depth[entryKey(&q)]), strings.Compare(p.Key(), q.Key()))
	})
	return planned, nil
}

// runbookOf reads the plan that a run names.
func (s *Snapshot) runbookOf(run *v1alpha1.RecoveryRun) (runbook, *refusal) {
	plan := s.planOf(run)
	if plan == nil && run.Spec.Plan != "" {
		return runbook{}, &refusal{ReasonPlanMissing, fmt.Sprintf("plan %s does not exist: create it, or order the run without a plan", run.Spec.Plan)}
	}
	return read(plan)
}
