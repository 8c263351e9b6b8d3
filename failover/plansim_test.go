package failover

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

var planSeed = flag.Uint64("planseed", 0, "run only this schedule of TestPlansUnderLostWritesAndLeaders")

// TestPlansUnderLostWritesAndLeaders runs plans over chance graphs of
// applications, of which some cannot be promoted, while writes are lost and
// leaders die with all that they remember. It checks that the order is kept,
// that a failure isolates itself, and that nothing has its effect twice.
func TestPlansUnderLostWritesAndLeaders(t *testing.T) {
	if *planSeed > 0 {
		planSchedule(t, *planSeed)
		return
	}
	for seed := range uint64(40) {
		if planSchedule(t, seed+1); t.Failed() {
			t.Fatalf("again with: go test ./failover -run TestPlansUnder -planseed %d", seed+1)
		}
	}
}

type schedule struct {
	*world
	chance  *rand.Rand
	needs   map[string][]string
	failing map[string]bool
	epochs  map[string]int64
}

func planSchedule(t *testing.T, seed uint64) {
	c := &schedule{world: newPlanWorld(t), chance: rand.New(rand.NewPCG(seed, 1)), needs: map[string][]string{}, failing: map[string]bool{}, epochs: map[string]int64{}}
	var names []string
	for i := range 3 + c.chance.IntN(6) {
		name := fmt.Sprintf("app%d", i)
		for _, dep := range names {
			if c.chance.IntN(4) == 0 {
				c.needs[name] = append(c.needs[name], dep)
			}
		}
		if c.chance.IntN(5) == 0 {
			c.failing[name] = true
			c.refusing(VerbPromote, name)
		}
		c.add(name, c.needs[name]...)
		names = append(names, name)
	}
	plan := v1alpha1.RecoveryPlanSpec{Use: v1alpha1.PlanAutomatic}
	if c.chance.IntN(2) == 0 {
		plan.Waves = []v1alpha1.PlanWave{{Name: "early", Applications: named(names[:1+c.chance.IntN(2)]...), Parallelism: int32(c.chance.IntN(3))}}
	}
	c.writePlan("city", plan)
	run, silent := "out", []string(nil)
	if c.chance.IntN(2) == 0 {
		run, silent = "city.north-1.1", []string{"north-1"}
		c.lose("north-1")
	} else {
		spec := fromNorth1
		spec.Plan = "city"
		c.start("out", spec)
	}
	lossy := c.chance.IntN(4)
	c.drop = func(string) bool { return lossy > 0 && c.chance.IntN(8-lossy) == 0 }
	for i := range 220 {
		if i == 140 {
			c.drop = func(string) bool { return false }
		}
		if lossy > 0 && i < 140 && c.chance.IntN(30) == 0 { // another leader
			c.s.Results = map[string]Result{}
		}
		c.beat(1, silent...)
		c.check(run)
	}
	if r := c.s.run(run); len(r.Status.Applications) != len(names) {
		c.t.Errorf("seed %d: run %s is %s %s %s", seed, run, r.Status.Phase, r.Status.Reason, r.Status.Message)
		return
	}
	c.judge(run, names)
}

// check looks at what the last turn committed.
func (c *schedule) check(run string) {
	for _, d := range c.s.Datasets {
		name := d.Name[:len(d.Name)-len("-db")]
		if d.Status.Epoch > 2 {
			c.t.Errorf("%s is at epoch %d", name, d.Status.Epoch)
		}
		if c.epochs[name] < 2 && d.Status.Epoch == 2 {
			for _, dep := range c.needs[name] {
				if r := c.s.run(run + ".1.pay." + dep); r == nil || r.Status.Phase != v1alpha1.RunCompleted {
					c.t.Errorf("%s was fenced before %s, which it depends on, was recovered", name, dep)
				}
			}
		}
		c.epochs[name] = d.Status.Epoch
	}
	active := map[string]int{}
	for _, r := range c.s.Runs {
		if !r.Spec.ForPlan() && !Finished(r.Status.Phase) {
			active[r.Spec.Application.Name]++
		}
	}
	for name, n := range active {
		if n > 1 {
			c.t.Errorf("%s has %d runs at once", name, n)
		}
	}
}

// judge compares the end with what the graph and the failures ask for.
func (c *schedule) judge(run string, names []string) {
	held := map[string]bool{}
	for _, name := range names {
		for _, dep := range c.needs[name] {
			held[name] = held[name] || held[dep] || c.failing[dep]
		}
		want := v1alpha1.ApplicationCompleted
		switch {
		case held[name]:
			want = v1alpha1.ApplicationHeld
		case c.failing[name]:
			want = v1alpha1.ApplicationStuck
		}
		if a := c.entry(run, name); a.State != want || (want == v1alpha1.ApplicationHeld) != (c.dbOf(name).Status.Epoch == 1) {
			c.t.Errorf("%s is %s (%s %s), epoch %d: want %s", name, a.State, a.Reason, a.Message, c.dbOf(name).Status.Epoch, want)
		}
	}
}
