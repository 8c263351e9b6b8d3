package failover

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// A hold damps flapping: a cluster that was lost, or from which a failover took
// the primary role, is no automatic target and no target of a failback until it
// has been heard without a gap for the hold time. So one link that flaps for as
// long as it likes moves a role once. A planned move holds nobody: its source
// has proven that it is well by stopping in order.

// defaultHold is that of a dataset that belongs to no application.
const defaultHold = 600 * time.Second

func holdTime(app *v1alpha1.Application) time.Duration {
	if app == nil {
		return defaultHold
	}
	return time.Duration(app.Spec.Failover.HoldSeconds) * time.Second
}

// held says why a cluster should not take over the datasets now, or is empty.
func (s *Snapshot) held(app *v1alpha1.Application, datasets []*v1alpha1.Dataset, cluster string) string {
	if c, ok := s.Fleet.Cluster(cluster); ok && c.Hold != "" {
		return fmt.Sprintf("%s is held by a person (%s): to end that: tripodctl hold %s --clear", cluster, c.Hold, cluster)
	}
	for _, d := range datasets {
		ms := memberStatus(d, cluster)
		if ms == nil || ms.HeldSince == nil {
			continue
		}
		hold := holdTime(app)
		return fmt.Sprintf("%s is held after a change until it has been stable for %v, which it will be in %v at the earliest", cluster, hold,
			s.holdLeft(ms.HeldSince, cluster, hold).Round(time.Second))
	}
	return ""
}

// holdLeft is how long a hold lasts at least. Both clocks count: a new leader has
// heard everybody for a short time only, and a cluster that a failover left while
// it was heard is as stable as before.
func (s *Snapshot) holdLeft(since *metav1.MicroTime, cluster string, hold time.Duration) time.Duration {
	return max(0, hold-s.Fleet.Sightings[cluster].Stable, hold-s.Now.Sub(since.Time))
}

// holds begins the hold of a member that is lost, again with each loss, and ends
// that of one that has been stable for the hold time.
func (p *protection) holds() {
	if p.was.Status.Epoch == 0 {
		return
	}
	hold := holdTime(p.app)
	for i := range p.now.Status.Members {
		ms := &p.now.Status.Members[i]
		class := p.det.Classes[ms.Cluster]
		switch {
		case class == Lost && (ms.HeldSince == nil || p.Previous.Classes[ms.Cluster] != Lost):
			at := metav1.NewMicroTime(p.Now)
			ms.HeldSince = &at
		case class == Healthy && ms.HeldSince != nil && p.holdLeft(ms.HeldSince, ms.Cluster, hold) == 0:
			ms.HeldSince = nil
		}
	}
}

// heldCheck is the preflight's word: a held target is taken only by a person.
func (s *Snapshot) heldCheck(app *v1alpha1.Application, d *v1alpha1.Dataset, cluster string) v1alpha1.PreflightCheck {
	c := check("Hold", cluster)
	if held, ok := s.Fleet.Cluster(cluster); ok && held.Hold != "" {
		c.Result, c.Message = v1alpha1.PreflightWarning, s.held(app, []*v1alpha1.Dataset{d}, cluster)
	} else if ms := memberStatus(d, cluster); ms != nil && ms.HeldSince != nil {
		// No time left: it would change the status each second.
		c.Result = v1alpha1.PreflightWarning
		c.Message = fmt.Sprintf("%s is held after a change until it has been stable for %v", cluster, holdTime(app))
	}
	return c
}
