package effector

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"tripod.dev/tripod/failover/driver"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

const (
	// defaultDeadline bounds a directive that has none.
	defaultDeadline = 30 * time.Second
	// catchUpInterval is how often a replica that catches up is looked at.
	catchUpInterval = 20 * time.Millisecond
)

// Carry does a directive and returns its result. Doing it twice has the effect
// of doing it once; a result that is final is remembered by the directive's id.
func (e *Effector) Carry(ctx context.Context, d *agentv1.Directive) *agentv1.DirectiveResult {
	began := time.Now()
	if r := e.answers.to(d.GetId()); r != nil {
		return r
	}
	timeout := time.Duration(d.GetDeadlineMillis()) * time.Millisecond
	if timeout <= 0 {
		timeout = defaultDeadline
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	o, message, err := e.carry(ctx, d)
	r := &agentv1.DirectiveResult{Id: d.GetId(), Outcome: agentv1.Outcome_OUTCOME_DONE, Message: message}
	switch {
	case err == nil:
	case errors.Is(err, driver.ErrOlder), errors.Is(err, driver.ErrRefused):
		r.Outcome, r.Message = agentv1.Outcome_OUTCOME_REFUSED, err.Error()
	default:
		r.Outcome, r.Message = agentv1.Outcome_OUTCOME_FAILED, err.Error()
	}
	if o != nil {
		r.Observation = e.keep(e.site(keyOf(d.GetDataset())), *o)
		r.Position, r.Timeline = o.Position.Text, o.Position.Timeline
	}
	r.ElapsedMillis = time.Since(began).Milliseconds()
	e.answers.keep(r)
	e.cfg.Log.Info("directive carried out", "run", d.GetRun(), "step", d.GetStep(), "dataset", keyOf(d.GetDataset()).String(),
		"verb", d.GetVerb().String(), "epoch", d.GetEpoch(), "outcome", r.GetOutcome().String(),
		"elapsed", time.Since(began), "error", r.GetMessage())
	return r
}

func (e *Effector) carry(ctx context.Context, d *agentv1.Directive) (*driver.Observation, string, error) {
	if !e.cfg.Active() {
		return nil, "", fmt.Errorf("replica %s of the agent in cluster %s is not the active one", e.cfg.Replica, e.cfg.Cluster)
	}
	role := proto.CloneOf(d.GetRole())
	if role == nil {
		return nil, "", fmt.Errorf("directive %s has no role to carry out: %w", d.GetId(), driver.ErrRefused)
	}
	role.Dataset, role.Epoch = d.GetDataset(), d.GetEpoch()
	drv, err := e.driver(role)
	if err != nil {
		return nil, "", fmt.Errorf("%w: %w", err, driver.ErrRefused)
	}
	s := e.site(keyOf(d.GetDataset()))
	revision := d.GetRevision()
	if question(d.GetVerb()) {
		revision = 0 // a question undoes nothing
	}
	if d.GetVerb() == agentv1.Verb_VERB_DRILL_STOP {
		return e.stopDrill(ctx, d, role) // also of an older epoch: what is left must go
	}
	if err := s.admit(d.GetIncarnation(), d.GetEpoch(), revision); err != nil {
		return nil, "", err
	}
	c := e.call(role, d.GetIncarnation())
	c.Revision = revision
	if d.GetVerb() == agentv1.Verb_VERB_FENCE {
		// A fence does not wait for its turn: the guard interrupts, too.
		s.preempt()
		w := e.witness(ctx, s, drv, role)
		o, err := drv.Fence(ctx, c)
		return w.stopped(ctx, o, "stopped, and a probe found nobody listening", err)
	}
	switch d.GetVerb() {
	case agentv1.Verb_VERB_PROMOTE:
		s.preempt()
		if err := e.cfg.Pledges.Yield(ctx, d.GetIncarnation(), d.GetDataset(), d.GetEpoch()); err != nil {
			return nil, "", err
		}
	case agentv1.Verb_VERB_WITHHOLD:
		err := e.cfg.Pledges.Yield(ctx, d.GetIncarnation(), d.GetDataset(), d.GetEpoch())
		return nil, "gives no more pledges for an older epoch, and none runs", err
	case agentv1.Verb_VERB_CLOSE:
		s.preempt()
	case agentv1.Verb_VERB_DRILL_START:
		return e.startDrill(ctx, d, role)
	case agentv1.Verb_VERB_CATCH_UP:
		return e.catchUp(ctx, drv, c, d.GetPositionBytes())
	case agentv1.Verb_VERB_FOLLOW, agentv1.Verb_VERB_DISCARD:
		return e.follow(ctx, s, drv, c, d.GetVerb() == agentv1.Verb_VERB_DISCARD)
	}
	ctx, done, err := s.take(ctx, ctx)
	if err != nil {
		return nil, "", err
	}
	defer done()
	return e.perform(ctx, drv, d, role, c)
}

// follow resynchronises, and goes on with that after the directive's deadline: a
// copy of a large database takes longer than any directive. Asked again, the
// same work is found under way or done.
func (e *Effector) follow(ctx context.Context, s *site, drv driver.Driver, c driver.Call, discard bool) (*driver.Observation, string, error) {
	long, cancel := context.WithTimeout(context.WithoutCancel(ctx), reconcileTimeout)
	work, done, err := s.take(ctx, long)
	if err != nil {
		cancel()
		return nil, "", err
	}
	type answer struct {
		resynced driver.Resynced
		err      error
	}
	answers := make(chan answer, 1)
	if !e.goLong(func() {
		defer cancel()
		defer done()
		r, err := s.resync(work, drv, c, discard)
		answers <- answer{r, err}
	}) {
		cancel()
		done()
		return nil, "", errors.New("the agent is ending")
	}
	select {
	case a := <-answers:
		return resynced(a.resynced, a.err)
	case <-ctx.Done():
		return nil, "", fmt.Errorf("dataset %s: the resynchronisation goes on, ask again: %w", s.key, ctx.Err())
	}
}

// goLong runs f beside the directives; Run waits for it, after ending it.
func (e *Effector) goLong(f func()) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended {
		return false
	}
	e.long.Go(f)
	return true
}

func (e *Effector) perform(ctx context.Context, drv driver.Driver, d *agentv1.Directive, role *agentv1.RoleGrant, c driver.Call) (*driver.Observation, string, error) {
	switch d.GetVerb() {
	case agentv1.Verb_VERB_PROMOTE:
		return e.promote(ctx, drv, role, c)
	case agentv1.Verb_VERB_CLOSE:
		w := e.witness(ctx, e.site(keyOf(d.GetDataset())), drv, role)
		o, err := drv.Demote(ctx, c)
		return w.stopped(ctx, o, "closed in order", err)
	case agentv1.Verb_VERB_SET_SYNC_SET:
		o, err := drv.SetSyncSet(ctx, c)
		return seen(o, err), "", err
	case agentv1.Verb_VERB_PROBE:
		p, err := drv.Probe(ctx, c)
		if err != nil {
			return nil, "", err
		}
		o := drv.Observe(ctx, c.Dataset)
		if !p.Writable {
			return &o, "", fmt.Errorf("dataset %s accepts no write in cluster %s (listening: %t): %s", c.Dataset.Key(), e.cfg.Cluster, p.Listening, p.Message)
		}
		return &o, "a write was accepted", nil
	}
	return nil, "", fmt.Errorf("verb %v is newer than this agent: %w", d.GetVerb(), driver.ErrRefused)
}

// promote waits until the guard can be shown a proof: the next grant, which it
// asks for at once, or the grant at hand if that is of the same epoch.
func (e *Effector) promote(ctx context.Context, drv driver.Driver, role *agentv1.RoleGrant, c driver.Call) (*driver.Observation, string, error) {
	k := keyOf(role.GetDataset())
	c.Primary = e.cfg.Cluster
	e.grants.promote(k, role, time.Now())
	for hurried := false; ; hurried = true {
		changed := e.grants.changes()
		p := e.grants.proof(k, time.Now())
		if p.GetRole().GetEpoch() > c.Epoch {
			return nil, "", fmt.Errorf("dataset %s: epoch %d was granted meanwhile: %w", k, p.GetRole().GetEpoch(), driver.ErrOlder)
		}
		if p.GetRole().GetEpoch() == c.Epoch && p.GetRole().GetRole() == agentv1.Role_ROLE_PRIMARY {
			break
		}
		if !hurried {
			e.cfg.Hurry()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, "", fmt.Errorf("dataset %s: no grant names this cluster primary at epoch %d yet: %w", k, c.Epoch, ctx.Err())
		}
	}
	e.links.push()
	o, err := drv.Promote(ctx, c)
	return seen(o, err), "", err
}

// catchUp waits until this replica holds the log up to a position.
func (e *Effector) catchUp(ctx context.Context, drv driver.Driver, c driver.Call, position int64) (*driver.Observation, string, error) {
	look := time.NewTicker(catchUpInterval)
	defer look.Stop()
	for {
		o := drv.Observe(ctx, c.Dataset)
		switch {
		case position <= 0 || o.Role == driver.RolePrimary:
			return &o, "", fmt.Errorf("dataset %s: only a replica catches up with a position, this is %s and the position is %d: %w",
				c.Dataset.Key(), o.Role, position, driver.ErrRefused)
		case answersForItself(o) && o.Position.Bytes >= position:
			return &o, "holds " + o.Position.Text, nil
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return &o, "", fmt.Errorf("dataset %s: this copy holds %s (%d), and not %d yet (%s %s): %w",
				c.Dataset.Key(), o.Position.Text, o.Position.Bytes, position, o.State, o.Message, ctx.Err())
		}
	}
}

// answersForItself is true for a replica whose position is its own word of now.
func answersForItself(o driver.Observation) bool {
	running := o.State == driver.StateStreaming || o.State == driver.StateCatchingUp || o.State == driver.StateDetached
	return o.Role == driver.RoleReplica && running
}

func seen(o driver.Observation, err error) *driver.Observation {
	if err != nil {
		return nil
	}
	return &o
}

func resynced(r driver.Resynced, err error) (*driver.Observation, string, error) {
	var diverged *driver.Diverged
	if errors.As(err, &diverged) {
		return &r.Observation, "", err
	}
	if err != nil {
		return nil, "", err
	}
	message := "method " + string(r.Method)
	if r.Divergence.Bytes > 0 {
		message += fmt.Sprintf("; took back %d bytes with %d transactions after %s, none acknowledged or their loss approved; kept aside",
			r.Divergence.Bytes, r.Divergence.Commits, r.Divergence.Fork)
	}
	return &r.Observation, message, nil
}
