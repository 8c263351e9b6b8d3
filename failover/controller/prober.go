package controller

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/failover/hook"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// probeEvery is how often the leader tries whether hooks could run and reads who may
// approve; a plan that was changed is tried at once.
const probeEvery = time.Minute

// prober finds out beside the turns what the preflight of plans rests on and no object
// of the engine says. One round at a time.
type prober struct {
	hooks  *hook.Runner
	client client.Reader

	mu        sync.Mutex
	busy      bool
	last      time.Duration
	plans     map[failover.HookRef]bool // of the last round
	faults    map[failover.HookRef]string
	approvers *failover.Approvers
}

// reset forgets an earlier term.
func (p *prober) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy, p.last, p.plans, p.faults, p.approvers = false, 0, nil, nil, nil
}

// show gives a snapshot what is known.
func (p *prober) show(s *failover.Snapshot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.HookFaults, s.Approvers = maps.Clone(p.faults), p.approvers
}

// due takes a round if it is time for one. What the round looks at is read from the
// snapshot before it returns.
func (p *prober) due(s *failover.Snapshot) (round []probe, yes bool) {
	present := map[failover.HookRef]bool{}
	for _, plan := range s.Plans {
		present[failover.HookRef{Plan: plan.Name, Generation: plan.Generation}] = true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.busy || len(present) == 0 || p.plans != nil && maps.Equal(present, p.plans) && s.Uptime-p.last < probeEvery {
		return nil, false
	}
	p.busy, p.last, p.plans = true, s.Uptime, present
	for _, plan := range s.Plans {
		for _, h := range plan.Spec.Hooks {
			round = append(round, probe{failover.HookRef{Plan: plan.Name, Generation: plan.Generation, Hook: h.Name}, h, failover.JobPlaces(s, plan, &h)})
		}
	}
	return round, true
}

type probe struct {
	ref    failover.HookRef
	hook   v1alpha1.PlanHook
	places []failover.JobPlace
}

// round looks once, and keeps what it found unless ctx has ended.
func (p *prober) round(ctx context.Context, round []probe) {
	faults := map[failover.HookRef]string{}
	for _, one := range round {
		if err := p.hooks.Check(ctx, one.ref.Plan, one.hook, one.places); err != nil {
			faults[one.ref] = err.Error()
		}
	}
	approvers := p.whoApproves(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	if ctx.Err() != nil {
		return // a new term has begun, or none will
	}
	p.busy, p.faults = false, faults
	if approvers != nil {
		p.approvers = approvers
	}
}

// whoApproves reads who holds the verb approve on runs by the hub's RBAC; nil if it
// cannot be read now.
func (p *prober) whoApproves(ctx context.Context) *failover.Approvers {
	var roles rbacv1.ClusterRoleList
	var bindings rbacv1.ClusterRoleBindingList
	if p.client.List(ctx, &roles) != nil || p.client.List(ctx, &bindings) != nil {
		return nil
	}
	return approversOf(roles.Items, bindings.Items)
}

func approversOf(roles []rbacv1.ClusterRole, bindings []rbacv1.ClusterRoleBinding) *failover.Approvers {
	approve := map[string]bool{}
	for _, r := range roles {
		approve[r.Name] = slices.ContainsFunc(r.Rules, func(rule rbacv1.PolicyRule) bool {
			return names(rule.Verbs, "approve") && names(rule.APIGroups, v1alpha1.GroupVersion.Group) && names(rule.Resources, "recoveryruns")
		})
	}
	out := &failover.Approvers{}
	for _, b := range bindings {
		if !approve[b.RoleRef.Name] {
			continue
		}
		for _, s := range b.Subjects {
			switch {
			case s.Kind == rbacv1.GroupKind && s.Name == "system:masters": // holds every right without it
			case s.Kind == rbacv1.GroupKind:
				out.Groups = append(out.Groups, s.Name)
			case s.Kind == rbacv1.ServiceAccountKind:
				out.People = append(out.People, "system:serviceaccount:"+s.Namespace+":"+s.Name)
			default:
				out.People = append(out.People, s.Name)
			}
		}
	}
	for _, list := range []*[]string{&out.People, &out.Groups} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	return out
}

// names is true when a rule's list has a name or everything.
func names(list []string, name string) bool {
	return slices.Contains(list, name) || slices.Contains(list, "*")
}
