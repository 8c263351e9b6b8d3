package effector

import (
	"context"
	"errors"
	"time"

	"tripod.dev/tripod/failover/driver"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

const (
	reconcileTimeout = 30 * time.Minute // a fresh copy of a large database
	divergedPause    = 30 * time.Second
)

// reconciler keeps copies as their grants say.
type reconciler struct{ *Effector }

// reconcile brings the copy to what the grant says, as far as no decision is
// needed for it: a primary that has stopped is started again at the epoch it
// holds, a replica follows. A promotion and the sync set come by directive only, and of
// a copy that has no guard everything.
func (e reconciler) reconcile(ctx context.Context, s *site, role *agentv1.RoleGrant) {
	d, err := e.driver(role)
	if err == nil && d.Identity().Unfenced {
		return
	}
	if err := certifier(e).certify(ctx, s); err != nil {
		e.cfg.Log.Warn("guard has no certificate", "dataset", s.key.String(), "error", err)
	}
	if err != nil {
		return // the observation says so
	}
	p := e.proof(s.key, e.links.asked(s.key), time.Now())
	if p.GetRole() == nil || s.resting(time.Now()) {
		return
	}
	if s.admit(p.GetIncarnation(), role.GetEpoch(), 0) != nil {
		return
	}
	status, _, ok := e.links.Host(s.key.namespace, s.key.name).Status()
	if !ok || status.GetBusy() != "" {
		return
	}
	act := e.need(d, role, status, p.GetIncarnation())
	if act == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, reconcileTimeout)
	defer cancel()
	ctx, done, err := s.take(ctx, ctx)
	if err != nil {
		return
	}
	defer done()
	err = act(ctx)
	s.rest(time.Now(), err)
	var diverged *driver.Diverged
	if errors.As(err, &diverged) {
		s.mu.Lock()
		s.retry = time.Now().Add(divergedPause)
		s.mu.Unlock()
	}
	if err != nil && ctx.Err() == nil {
		e.cfg.Log.Warn("copy is not as granted", "dataset", s.key.String(), "epoch", role.GetEpoch(), "error", err)
	}
	e.observe(ctx, s, role)
}

// need returns the act that the copy needs, or nil.
func (e reconciler) need(d driver.Driver, role *agentv1.RoleGrant, status *agentv1.GuardStatus, incarnation uint64) func(context.Context) error {
	c := e.call(role, incarnation)
	switch role.GetRole() {
	case agentv1.Role_ROLE_PRIMARY:
		return e.needPrimary(d, c, status)
	case agentv1.Role_ROLE_REPLICA:
		if c.Primary == "" || c.Primary == e.cfg.Cluster || c.PrimaryAddress == "" || e.followsWell(c, status) {
			return nil
		}
		return func(ctx context.Context) error {
			_, err := e.site(key{c.Dataset.Namespace, c.Dataset.Name}).resync(ctx, d, c, false)
			return err
		}
	}
	return nil
}

func (e reconciler) needPrimary(d driver.Driver, c driver.Call, status *agentv1.GuardStatus) func(context.Context) error {
	if status.GetHeldEpoch() != c.Epoch || status.GetFenced() || status.GetClosed() {
		return nil
	}
	if status.GetMode() != agentv1.DatabaseMode_DATABASE_MODE_STOPPED {
		return nil
	}
	// Whom it waits for at this epoch the guard remembers; the grant may still
	// say whom the primary before it waited for.
	c.Primary, c.SyncSet = e.cfg.Cluster, []string{e.cfg.Cluster}
	return func(ctx context.Context) error {
		_, err := d.Promote(ctx, c)
		return err
	}
}

// followsWell spares a replica that receives its log the questions of a resync,
// once they have been answered at this epoch: an address says little about who is
// behind it now.
func (e reconciler) followsWell(c driver.Call, status *agentv1.GuardStatus) bool {
	if status.GetMode() != agentv1.DatabaseMode_DATABASE_MODE_REPLICA || status.GetFollows() != c.PrimaryAddress {
		return false
	}
	s := e.site(key{c.Dataset.Namespace, c.Dataset.Name})
	if !s.follows(c.Epoch) {
		return false
	}
	o, _ := s.observation(nil, nil)
	return o.GetState() == string(driver.StateStreaming) || o.GetState() == string(driver.StateCatchingUp)
}
