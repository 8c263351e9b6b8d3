package hub

import (
	"context"
	"fmt"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/failover/controller"
	"tripod.dev/tripod/hub/api/v1alpha1"
	hubstore "tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/member"
	"tripod.dev/tripod/hub/term"
	"tripod.dev/tripod/hub/view"
	raftlogv1 "tripod.dev/tripod/proto/raftlog/v1"
)

// senses is what a member perceives of the fleet, below the API server.
type senses struct {
	leases       *term.Leases
	committed    *term.Committed
	vantages     *term.Vantages
	observations *term.Observations
	leaser       *term.Leaser
	view         *view.View
}

// missedTicks is after how many silent ticks a cluster is not heard steadily.
const missedTicks = 3

func (m *Member) openIdentity(ctx context.Context) (err error) {
	if m.identity, err = openIdentity(ctx, m.config, m.logger); err != nil {
		return err
	}
	if err := m.metrics.Register(m.identity); err != nil {
		return fmt.Errorf("register the identity's metrics: %w", err)
	}
	return nil
}

// openStore starts counting leases before the store applies anything: a member
// that has just started counts every lease from its start.
func (m *Member) openStore(context.Context) (err error) {
	m.senses.leases = term.NewLeases(m.lease, m.clock)
	m.store, m.etcd, err = newStore(m.config, m.identity, m.senses.leases, m.metrics, m.logger)
	if err != nil {
		return err
	}
	m.identity.Admit(m.store.Membership().Knows)
	m.identity.Require(m.store.Level)
	m.autopilot = member.NewAutopilot(member.Config{
		Store: m.store, PreferredCenter: m.config.PreferredCenter,
		Policy: member.Policy{RemoveDeadAfter: m.config.RemoveDeadMembersAfter.Duration}, Logger: m.logger,
	})
	m.defragmenter = member.NewDefragmenter(member.DefragmenterConfig{Store: m.store, Logger: m.logger})
	m.seal = newSeal(m.store)
	m.progress = newProgress(m.clock)
	return nil
}

func (m *Member) openSenses(context.Context) (err error) {
	s := &m.senses
	s.committed = term.NewCommitted(decrypted{m.store, m.box}, term.DefaultPrefix, m.clock, pledgers)
	s.vantages = term.NewVantages(missedTicks*m.lease.Tick, m.clock)
	s.observations = term.NewObservations(missedTicks*m.lease.Tick, m.clock)
	s.leaser = term.NewLeaser(term.LeaserConfig{
		Lease: m.lease, Incarnation: m.store.Incarnation, Steady: s.leases.Steady, Proposer: proposer{m.store}, Roster: s.committed,
		Vantages: s.vantages, Observations: s.observations, Clock: m.clock, Logger: m.logger,
	})
	s.view, err = view.New(view.Config{Expected: s.expected, Logger: m.logger})
	if err != nil {
		return fmt.Errorf("make the view: %w", err)
	}
	return nil
}

// expected names the clusters that should be in the view.
func (s *senses) expected() []string {
	clusters, _, err := s.committed.Clusters(context.Background()) // memory and a local file
	if err != nil {
		return nil
	}
	names := make([]string, 0, len(clusters))
	for _, c := range clusters {
		names = append(names, c.Name)
	}
	return names
}

// Cluster finds a committed Cluster for the gateway.
func (s *senses) Cluster(name string) (*v1alpha1.Cluster, bool) {
	clusters, _, err := s.committed.Clusters(context.Background()) // memory and a local file
	if err != nil {
		return nil, false
	}
	for _, c := range clusters {
		if c.Name == name {
			return c, true
		}
	}
	return nil, false
}

// proposer lets the leaser propose renewals to the store.
type proposer struct{ store *hubstore.Store }

func (p proposer) ProposeRenewal(ctx context.Context, renewal *raftlogv1.LeaseRenewal) (term.Applied, error) {
	applied, err := p.store.ProposeRenewal(ctx, renewal)
	return term.Applied{Term: applied.Term, Revision: applied.Revision}, err
}

// sight shows the failover engine who hears whom.
type sight struct {
	vantages     *term.Vantages
	observations *term.Observations
}

func (s sight) Members() []failover.HubMember {
	var members []failover.HubMember
	for _, v := range s.vantages.Members() {
		members = append(members, failover.HubMember{Name: v.Member, Center: v.Center, Reported: v.Reported})
	}
	return members
}

func (s sight) Sight(cluster string) controller.Sight {
	return controller.Sight{
		HeardBy:      s.vantages.HeardBy(cluster),
		Unobservable: s.vantages.Unobservable(cluster),
		Stable:       s.vantages.Stable(cluster),
		Pledges:      s.observations.Pledge(cluster),
	}
}

// reports shows the failover engine what the agents observe.
type reports struct{ observations *term.Observations }

func (r reports) Reports() []controller.Report {
	var list []controller.Report
	r.observations.Each(func(key term.CopyKey, o term.Observation, of int) {
		if list == nil {
			list = make([]controller.Report, 0, of)
		}
		list = append(list, controller.Report{Cluster: key.Cluster, Age: o.Age, Held: o.Held, Runs: o.Runs, Dataset: o.DatasetObservation})
	})
	return list
}
