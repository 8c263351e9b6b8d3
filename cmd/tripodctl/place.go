package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// moveFlags say that a whole place moves in place of one application.
type moveFlags struct {
	center, region, plan string
	// anywhere: a plan alone names the applications, wherever they are active.
	anywhere bool
}

// add defines the flags; what the command does to the applications is for people.
func (p *moveFlags) add(c *cobra.Command, what string) {
	c.Flags().StringVar(&p.center, "from-center", "", what+" every application that is active in this center, dependencies first")
	c.Flags().StringVar(&p.region, "from-region", "", what+" every application that is active in this region, dependencies first")
	c.Flags().StringVar(&p.plan, "plan", "", "the RecoveryPlan with the order, hooks and approvals; with a place it also selects the applications")
}

func (p *moveFlags) given() bool {
	return p.center != "" || p.region != "" || p.anywhere && p.plan != ""
}

// args checks that there is either one application or one place.
func (p *moveFlags) args(_ *cobra.Command, args []string) error {
	switch {
	case p.center != "" && p.region != "":
		return errors.New("--from-center and --from-region were both given: give the one that is to be left")
	case p.given() && len(args) > 0:
		return fmt.Errorf("both %s and a place were given: leave one of them out", args[0])
	case !p.given() && len(args) != 1 && p.anywhere:
		return errors.New("name one application as NAMESPACE/NAME, a place with --from-center or --from-region, or a plan with --plan")
	case !p.given() && len(args) != 1:
		return errors.New("name one application as NAMESPACE/NAME, or a place with --from-center or --from-region")
	}
	return nil
}

// order creates the run that args and flags ask for, and returns its name.
func (p *moveFlags) order(ctx context.Context, api client.Client, args []string, to string, spec v1alpha1.RecoveryRunSpec) (string, error) {
	if p.given() {
		return p.orderPlace(ctx, api, to, spec)
	}
	name, err := namespacedName(args[0])
	if err != nil {
		return "", err
	}
	spec.Plan, spec.To = p.plan, v1alpha1.Place{Cluster: to}
	return orderMove(ctx, api, name, spec)
}

// orderPlace creates the run that moves everything out of a place, and returns its
// name.
func (p *moveFlags) orderPlace(ctx context.Context, api client.Client, to string, spec v1alpha1.RecoveryRunSpec) (string, error) {
	var clusters v1alpha1.ClusterList
	if err := api.List(ctx, &clusters); err != nil {
		return "", fmt.Errorf("list clusters: %w", err)
	}
	spec.Plan, spec.From = p.plan, v1alpha1.Place{Center: p.center, Region: p.region}
	where := p.center + p.region
	if where != "" && !slices.ContainsFunc(clusters.Items, func(c v1alpha1.Cluster) bool {
		return p.center != "" && c.Spec.Center == p.center || p.region != "" && c.Spec.Region == p.region
	}) {
		return "", fmt.Errorf("no cluster is in %s: `tripodctl clusters` lists them with their centers and regions", where)
	}
	var err error
	if spec.To, err = placeNamed(clusters.Items, to); err != nil {
		return "", err
	}
	if p.plan != "" {
		var plan v1alpha1.RecoveryPlan
		if err := api.Get(ctx, client.ObjectKey{Name: p.plan}, &plan); err != nil {
			return "", fmt.Errorf("get plan %s: %w; `tripodctl plans` lists them", p.plan, err)
		}
	}
	base := cmp.Or(p.plan, where)
	run := &v1alpha1.RecoveryRun{ObjectMeta: metav1.ObjectMeta{GenerateName: base + ".ordered-"}, Spec: spec}
	if err := api.Create(ctx, run); err != nil {
		return "", fmt.Errorf("order the %s of everything in %s: %w", strings.ToLower(string(spec.Action)), cmp.Or(where, "plan "+p.plan), err)
	}
	return run.Name, nil
}

// placeNamed finds what a name means: a cluster, else a center, else a region.
func placeNamed(clusters []v1alpha1.Cluster, name string) (v1alpha1.Place, error) {
	if name == "" {
		return v1alpha1.Place{}, nil
	}
	for _, c := range clusters {
		if c.Name == name {
			return v1alpha1.Place{Cluster: name}, nil
		}
	}
	for _, c := range clusters {
		if c.Spec.Center == name {
			return v1alpha1.Place{Center: name}, nil
		}
	}
	for _, c := range clusters {
		if c.Spec.Region == name {
			return v1alpha1.Place{Region: name}, nil
		}
	}
	return v1alpha1.Place{}, fmt.Errorf("--to %s is no cluster, center or region: `tripodctl clusters` lists them", name)
}

// placeText is the most exact name of a place.
func placeText(p v1alpha1.Place) string {
	switch {
	case p.Cluster != "":
		return p.Cluster
	case p.Center != "":
		return p.Center
	}
	return p.Region
}

// subject is what a run moves.
func subject(run *v1alpha1.RecoveryRun) string {
	if run.Spec.ForPlan() {
		if run.Spec.Plan != "" {
			return "plan " + run.Spec.Plan
		}
		return "everything"
	}
	return run.Spec.Application.Namespace + "/" + run.Spec.Application.Name
}

// target is where a run goes, as it was ordered or as the engine chose.
func target(run *v1alpha1.RecoveryRun) string {
	if to := placeText(run.Spec.To); to != "" || len(run.Status.Datasets) == 0 {
		return to
	}
	return run.Status.Datasets[0].Target
}

// printApplications prints the order and the state of a plan's run.
func printApplications(w io.Writer, s v1alpha1.RecoveryRunStatus) error {
	if len(s.Applications) == 0 {
		return nil
	}
	if p := s.Progress; p != nil {
		fmt.Fprintf(w, "progress  %d of %d moved; %d running, %d waiting, %d stuck, %d held, %d failed\n",
			p.Completed, p.Applications, p.Running, p.Waiting, p.Stuck, p.Held, p.Failed)
	}
	var rows [][]string
	for i := range s.Applications {
		a := &s.Applications[i]
		wave := fmt.Sprint(a.Wave)
		if int(a.Wave) < len(s.Waves) {
			wave = s.Waves[a.Wave].Name
		}
		loss := ""
		if a.Loss != nil && a.Loss.Possible {
			loss = fmt.Sprintf("%ds %dB", a.Loss.Seconds, a.Loss.Bytes)
			if a.Loss.Extent == v1alpha1.LossUnknown {
				loss = lossUnknown
			}
		}
		state := string(a.State)
		if state == "" {
			state = "Waiting"
		}
		rows = append(rows, []string{a.Key(), wave, state, a.Target, loss, a.Run, strings.TrimSpace(a.Reason + " " + a.Message)})
	}
	return printTable(w, []string{"APPLICATION", "WAVE", "STATE", "TARGET", "LOSS", "RUN", "WHY"}, rows)
}
