package controller

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/hub/api/v1alpha1"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// command sends the commands of one turn.
func (c *Controller) command(ctx context.Context, datasets []*v1alpha1.Dataset, commands []failover.Command) {
	if len(commands) == 0 {
		return
	}
	named := make(map[types.NamespacedName]*v1alpha1.Dataset, len(datasets))
	for _, d := range datasets {
		named[client.ObjectKeyFromObject(d)] = d
	}
	for _, cmd := range commands {
		if d := named[cmd.Dataset]; d != nil {
			c.direct(ctx, cmd, directive(cmd, d))
		}
	}
}

// direct sends one command in its wire form, unless it is under way.
func (c *Controller) direct(ctx context.Context, cmd failover.Command, d *agentv1.Directive) {
	d.Incarnation, d.Term = c.cfg.Incarnation(), c.cfg.Term()
	if !c.sender.send(ctx, cmd, d) {
		return
	}
	c.log.Info("directive sent", "cluster", cmd.Cluster, "dataset", cmd.Dataset.String(), "verb", string(cmd.Verb),
		"epoch", cmd.Epoch, "run", cmd.Run, "step", cmd.Step)
	if cmd.Every == 0 {
		c.recorder.note(failover.Note{Run: cmd.Run, Kind: failover.NoteCommand, Subject: cmd.Cluster,
			Text: fmt.Sprintf("%s %s %s epoch %d incarnation %d term %d revision %d", d.Id, cmd.Verb, cmd.Dataset, cmd.Epoch, d.Incarnation, d.Term, cmd.Revision)})
	}
}

func directive(cmd failover.Command, d *v1alpha1.Dataset) *agentv1.Directive {
	key := &agentv1.DatasetKey{Namespace: d.Namespace, Name: d.Name}
	role := &agentv1.RoleGrant{Dataset: key, Epoch: cmd.Epoch, Role: verbRoles[cmd.Verb], Driver: d.Spec.Driver,
		Primary: cmd.Primary, SyncSet: cmd.SyncSet, Protection: protections[d.Spec.Protection]}
	for _, m := range d.Spec.Members {
		if m.Cluster == cmd.Cluster {
			role.Parameters, role.Address = m.Parameters, m.Address
		}
		if m.Cluster == cmd.Primary {
			role.PrimaryAddress = m.Address
		}
		role.Peers = append(role.Peers, &agentv1.DatasetPeer{Cluster: m.Cluster, Address: m.Address, Asynchronous: m.Link == v1alpha1.LinkAsynchronous})
	}
	return &agentv1.Directive{Id: cmd.ID, Run: cmd.Run, Step: cmd.Step, Attempt: cmd.Attempt, Epoch: cmd.Epoch, Dataset: key,
		Verb: verbs[cmd.Verb], Role: role, DeadlineMillis: cmd.Bound.Milliseconds(), Revision: cmd.Revision, PositionBytes: cmd.PositionBytes}
}

var verbs = map[failover.Verb]agentv1.Verb{
	failover.VerbFence:      agentv1.Verb_VERB_FENCE,
	failover.VerbPromote:    agentv1.Verb_VERB_PROMOTE,
	failover.VerbFollow:     agentv1.Verb_VERB_FOLLOW,
	failover.VerbSetSyncSet: agentv1.Verb_VERB_SET_SYNC_SET,
	failover.VerbProbe:      agentv1.Verb_VERB_PROBE,
	failover.VerbDiscard:    agentv1.Verb_VERB_DISCARD,
	failover.VerbClose:      agentv1.Verb_VERB_CLOSE,
	failover.VerbCatchUp:    agentv1.Verb_VERB_CATCH_UP,
	failover.VerbDrillStart: agentv1.Verb_VERB_DRILL_START,
	failover.VerbDrillStop:  agentv1.Verb_VERB_DRILL_STOP,
	failover.VerbWithhold:   agentv1.Verb_VERB_WITHHOLD,
}

var verbRoles = map[failover.Verb]agentv1.Role{
	failover.VerbFence:      agentv1.Role_ROLE_NONE,
	failover.VerbPromote:    agentv1.Role_ROLE_PRIMARY,
	failover.VerbFollow:     agentv1.Role_ROLE_REPLICA,
	failover.VerbSetSyncSet: agentv1.Role_ROLE_PRIMARY,
	failover.VerbProbe:      agentv1.Role_ROLE_PRIMARY,
	failover.VerbDiscard:    agentv1.Role_ROLE_REPLICA,
	failover.VerbClose:      agentv1.Role_ROLE_PRIMARY,
	failover.VerbCatchUp:    agentv1.Role_ROLE_REPLICA,
	failover.VerbDrillStart: agentv1.Role_ROLE_REPLICA,
	failover.VerbDrillStop:  agentv1.Role_ROLE_REPLICA,
	failover.VerbWithhold:   agentv1.Role_ROLE_REPLICA,
}

var protections = map[v1alpha1.Protection]agentv1.Protection{
	v1alpha1.ZeroLoss:        agentv1.Protection_PROTECTION_ZERO_LOSS,
	v1alpha1.MaxAvailability: agentv1.Protection_PROTECTION_MAX_AVAILABILITY,
	v1alpha1.Asynchronous:    agentv1.Protection_PROTECTION_ASYNCHRONOUS,
}
