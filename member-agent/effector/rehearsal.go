package effector

import (
	"context"
	"fmt"

	"tripod.dev/tripod/failover/driver"
	"tripod.dev/tripod/failover/driver/postgresql"
	"tripod.dev/tripod/member-agent/drill"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// question is true for what changes nothing of the dataset, and so has no order
// among what does.
func question(v agentv1.Verb) bool {
	switch v {
	case agentv1.Verb_VERB_PROBE, agentv1.Verb_VERB_CATCH_UP, agentv1.Verb_VERB_DRILL_START, agentv1.Verb_VERB_DRILL_STOP:
		return true
	}
	return false
}

// startDrill has a copy of this replica drilled. It does not take the dataset's
// turn: replication and every other work go on.
func (e *Effector) startDrill(ctx context.Context, d *agentv1.Directive, role *agentv1.RoleGrant) (*driver.Observation, string, error) {
	o, err := e.drillOrder(d, role)
	if err != nil {
		return nil, "", err
	}
	status, address, ok := e.links.Host(o.Namespace, o.Dataset).Status()
	if !ok || status.GetMode() != agentv1.DatabaseMode_DATABASE_MODE_REPLICA {
		return nil, "", fmt.Errorf("dataset %s/%s: only a running replica is drilled: %w", o.Namespace, o.Dataset, driver.ErrRefused)
	}
	o.Source = address
	message, err := e.cfg.Drills.Start(ctx, o)
	return nil, message, err
}

func (e *Effector) stopDrill(ctx context.Context, d *agentv1.Directive, role *agentv1.RoleGrant) (*driver.Observation, string, error) {
	o, err := e.drillOrder(d, role)
	if err != nil {
		return nil, "", err
	}
	return nil, "nothing of the drill is left", e.cfg.Drills.Stop(ctx, o)
}

func (e *Effector) drillOrder(d *agentv1.Directive, role *agentv1.RoleGrant) (drill.Order, error) {
	k := keyOf(d.GetDataset())
	if e.cfg.Drills == nil || role.GetDriver() != postgresql.Name {
		return drill.Order{}, fmt.Errorf("dataset %s: drills with driver %q are not possible in cluster %s: %w", k, role.GetDriver(), e.cfg.Cluster, driver.ErrRefused)
	}
	o := drill.Order{Run: d.GetRun(), Incarnation: d.GetIncarnation(), Namespace: k.namespace, Dataset: k.name,
		StatefulSet: role.GetParameters()["statefulSet"], Secret: role.GetParameters()[postgresql.ParameterSecret],
		Options: postgresql.Options(role.GetParameters())}
	if o.StatefulSet == "" {
		o.StatefulSet = k.name
	}
	if o.Secret == "" {
		o.Secret = k.name + "-credentials"
	}
	return o, nil
}
