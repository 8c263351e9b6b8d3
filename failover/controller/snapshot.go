package controller

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/hub/api/v1alpha1"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// snapshot gathers everything that one turn is decided from.
func (c *Controller) snapshot(ctx context.Context) (*failover.Snapshot, error) {
	s := &failover.Snapshot{Config: c.cfg.Engine, Now: time.Now(), Uptime: c.uptime(), Previous: c.detection, Brief: c.uptime() < c.careful,
		Fence: c.fence, Results: c.sender.results()}
	var clusters []*v1alpha1.Cluster
	var err error
	read := func(f func() error) {
		if err == nil {
			err = f()
		}
	}
	var cl v1alpha1.ClusterList
	var al v1alpha1.ApplicationList
	var dl v1alpha1.DatasetList
	var gl v1alpha1.GlobalServiceList
	var rl v1alpha1.RecoveryRunList
	var pl v1alpha1.RecoveryPlanList
	var vl v1alpha1.ApprovalList
	var ml v1alpha1.PlacementList
	read(func() (e error) { clusters, e = list(ctx, c.objects, &cl, pointers(&cl.Items)); return })
	read(func() (e error) { s.Applications, e = list(ctx, c.objects, &al, pointers(&al.Items)); return })
	read(func() (e error) { s.Datasets, e = list(ctx, c.objects, &dl, pointers(&dl.Items)); return })
	read(func() (e error) { s.Services, e = list(ctx, c.objects, &gl, pointers(&gl.Items)); return })
	read(func() (e error) { s.Runs, e = list(ctx, c.objects, &rl, pointers(&rl.Items)); return })
	read(func() (e error) { s.Plans, e = list(ctx, c.objects, &pl, pointers(&pl.Items)); return })
	read(func() (e error) { s.Approvals, e = list(ctx, c.objects, &vl, pointers(&vl.Items)); return })
	read(func() (e error) { s.Placements, e = list(ctx, c.objects, &ml, pointers(&ml.Items)); return })
	if err != nil {
		return nil, fmt.Errorf("gather the engine's snapshot: %w", err)
	}
	byName(s.Applications)
	byName(s.Datasets)
	byName(s.Services)
	byName(s.Runs)
	byName(clusters)
	byName(s.Placements)
	byName(s.Plans)
	c.prober.show(s)
	s.Kubernetes = map[string]*v1alpha1.KubernetesStatus{}
	for _, cl := range clusters {
		s.Kubernetes[cl.Name] = cl.Status.Kubernetes
	}
	s.Fleet = c.fleet(clusters, s.Now)
	s.Observed = c.observed()
	return s, nil
}

// fence is the lease book's word, as far as the book goes: a member that has not
// applied revision yet may lack renewals below it. A leader has, but one that
// does not know that it was deposed writes through its successor.
func (c *Controller) fence(cluster string, revision int64) (bool, time.Duration) {
	over, age := c.cfg.Leases.Fence(cluster, revision)
	return over && c.cfg.Applied() >= revision, age
}

func pointers[T any](items *[]T) func() []*T {
	return func() []*T {
		out := make([]*T, len(*items))
		for i := range *items {
			out[i] = &(*items)[i]
		}
		return out
	}
}

func byName[T client.Object](objects []T) {
	slices.SortFunc(objects, func(a, b T) int {
		return cmp.Or(strings.Compare(a.GetNamespace(), b.GetNamespace()), strings.Compare(a.GetName(), b.GetName()))
	})
}

func (c *Controller) fleet(clusters []*v1alpha1.Cluster, now time.Time) failover.Fleet {
	f := failover.Fleet{Members: c.cfg.Vantages.Members(), Sightings: map[string]failover.Sighting{}, Watching: c.uptime() - c.since,
		Prompt: c.cfg.Leases.Prompt()}
	youngest := c.uptime()
	for _, cl := range clusters {
		// A hub whose clusters are still to join must not open the breaker
		// against itself.
		if cl.Spec.Admission != v1alpha1.AdmissionAccepted || !cl.HasJoined() {
			continue
		}
		over, silent := c.cfg.Leases.Fence(cl.Name, 0)
		if left := c.cfg.Leases.FenceIn(cl.Name, 0); left > 0 {
			c.ends = min(c.ends, c.uptime()+left)
		}
		youngest = min(youngest, silent)
		sight := c.cfg.Vantages.Sight(cl.Name)
		f.Clusters = append(f.Clusters, failover.Cluster{Name: cl.Name, Region: cl.Spec.Region, Center: cl.Spec.Center,
			AgentAddress: c.agentAddress(cl, sight), Hold: hold(cl.Spec.Hold, now)})
		f.Sightings[cl.Name] = failover.Sighting{LeaseOver: over, Silent: silent, Lapsed: c.cfg.Leases.Lapsed(cl.Name),
			HeardBy: sight.HeardBy, Unobservable: sight.Unobservable, Stable: sight.Stable}
	}
	c.next = min(c.next, c.ends)
	f.AfterOutage = c.outage(youngest)
	return f
}

// agentAddress is where an agent answers others, once everybody whom that concerns
// knows pledges. It may be set in the Cluster before: nothing is offered until the
// last member of the hub and the last replica of the agent are upgraded. What was
// offered once stays, so nobody is to be downgraded after that.
func (c *Controller) agentAddress(cl *v1alpha1.Cluster, sight Sight) string {
	if !sight.Pledges || !c.cfg.HubPledges() {
		return ""
	}
	return cl.Spec.AgentAddress
}

// hold is why a person keeps roles away from a cluster now, or empty.
func hold(h *v1alpha1.ClusterHold, now time.Time) string {
	if !h.Holds(now) {
		return ""
	}
	why := h.Reason
	if why == "" {
		why = "no reason was given"
	}
	if h.Until != nil {
		why += ", until " + h.Until.UTC().Format(time.RFC3339)
	}
	return why
}

// outage judges, once a term, whether the hub itself was out before it, or had
// not been back for long: an agent that lost every member may take as long as the
// grace to return. So may all of them after a cut between them and the whole hub.
func (c *Controller) outage(youngest time.Duration) bool {
	if c.afterOutage == nil {
		out := youngest > 2*c.cfg.Engine.Suspect || c.cfg.Leases.Steady() < c.cfg.Engine.Grace
		c.afterOutage = &out
	}
	return *c.afterOutage
}

func (c *Controller) observed() map[failover.Copy]failover.Observed {
	reports := c.cfg.Observations.Reports()
	out := make(map[failover.Copy]failover.Observed, len(reports))
	for _, r := range reports {
		name := types.NamespacedName{Namespace: r.Dataset.GetDataset().GetNamespace(), Name: r.Dataset.GetDataset().GetName()}
		o := fromWire(r.Dataset, r.Age)
		o.Held, o.Runs = r.Held, r.Runs
		out[failover.Copy{Dataset: name, Cluster: r.Cluster}] = o
	}
	return out
}

func fromWire(d *agentv1.DatasetObservation, age time.Duration) failover.Observed {
	o := failover.Observed{Role: roles[d.GetRole()], State: v1alpha1.MemberState(d.GetState()), Epoch: d.GetEpoch(),
		Position: d.GetPosition(), PositionBytes: d.GetPositionBytes(), Timeline: d.GetTimeline(),
		LagBytes: d.LagBytes, LagSeconds: d.LagSeconds, Guarded: v1alpha1.GuardUnknown,
		Acknowledges: d.GetAcknowledges(), Streaming: d.GetStreaming(), CaughtUp: d.GetCaughtUp(), Message: d.GetMessage(), Age: age,
		Copy: v1alpha1.CopyState(d.GetCopy())}
	if d.GetGuardKnown() {
		o.Guarded = v1alpha1.Unguarded
		if d.GetGuarded() {
			o.Guarded = v1alpha1.Guarded
		}
	}
	return o
}

var roles = map[agentv1.Role]v1alpha1.Role{
	agentv1.Role_ROLE_UNSPECIFIED: v1alpha1.RoleNone,
	agentv1.Role_ROLE_NONE:        v1alpha1.RoleNone,
	agentv1.Role_ROLE_REPLICA:     v1alpha1.RoleReplica,
	agentv1.Role_ROLE_PRIMARY:     v1alpha1.RolePrimary,
}
