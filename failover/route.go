package failover

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// Route brings the status of a name to where it should lead and is true when
// that changed it. ActiveOnly leads to the primary of the application's
// datasets, and stays as it is while that changes; without datasets, to the
// first endpoint whose cluster is not lost, and it stays there until that one
// is. AllHealthy leads to every cluster that is not lost; when none is left the
// last answer stands (an empty answer helps nobody).
func Route(s *Snapshot, det Detection, app *v1alpha1.Application, datasets []*v1alpha1.Dataset, g *v1alpha1.GlobalService) bool {
	active, epoch, decided := destination(s, det, datasets, g)
	if !decided {
		return false
	}
	var answers []string
	for _, e := range g.Spec.Endpoints {
		if slices.Contains(active, e.Cluster) {
			answers = append(answers, e.Address)
		}
	}
	st := &g.Status
	if slices.Equal(st.Active, active) && slices.Equal(st.Answers, answers) && st.Epoch > 0 {
		return false
	}
	st.Active, st.Answers = active, answers
	st.Epoch = max(st.Epoch+1, epoch)
	st.ObservedGeneration = g.Generation
	return true
}

func destination(s *Snapshot, det Detection, datasets []*v1alpha1.Dataset, g *v1alpha1.GlobalService) (active []string, epoch int64, decided bool) {
	if g.Spec.Mode == v1alpha1.AllHealthy {
		for _, e := range g.Spec.Endpoints {
			if det.Classes[e.Cluster] != Lost && det.Classes[e.Cluster] != "" && !slices.Contains(active, e.Cluster) {
				active = append(active, e.Cluster)
			}
		}
		return active, 1, len(active) > 0
	}
	if len(datasets) == 0 {
		return stateless(s, det, g)
	}
	for _, d := range datasets {
		if d.Status.Phase != v1alpha1.DatasetSteady {
			return nil, 0, false
		}
		epoch = max(epoch, d.Status.Epoch)
		if !slices.Contains(active, d.Status.Primary) {
			active = append(active, d.Status.Primary)
		}
	}
	return active, epoch, true
}

// stateless keeps the route of an application without datasets until its
// cluster is lost, and moves it only when the engine may act; to a cluster that
// a person holds only when there is no other.
func stateless(s *Snapshot, det Detection, g *v1alpha1.GlobalService) ([]string, int64, bool) {
	if len(g.Status.Active) > 0 && (det.Classes[g.Status.Active[0]] != Lost || !det.Automatic()) {
		return g.Status.Active, g.Status.Epoch, true
	}
	for _, held := range []bool{false, true} {
		for _, e := range g.Spec.Endpoints {
			c, _ := s.Fleet.Cluster(e.Cluster)
			if det.Classes[e.Cluster] == Healthy && (c.Hold != "") == held {
				return []string{e.Cluster}, 1, true
			}
		}
	}
	return nil, 0, false
}

// settle ends a role change on the dataset: the new primary alone is in the
// sync set of its epoch (docs/decisions/0007). The one that a failover left is
// held from at.
func settle(d *v1alpha1.Dataset, at *metav1.MicroTime) {
	st := &d.Status
	st.Phase = v1alpha1.DatasetSteady
	st.SyncSet, st.SyncTarget = []string{st.Primary}, nil
	st.SyncGeneration++
	planned := st.CatchUp != nil
	st.Run, st.CatchUp, st.UnsettledAfter, st.Lingers = "", nil, 0, ""
	if st.PreviousPrimary == "" || planned || at == nil {
		return
	}
	ms := memberStatus(d, st.PreviousPrimary)
	if ms == nil {
		st.Members = append(st.Members, v1alpha1.DatasetMemberStatus{Cluster: st.PreviousPrimary})
		ms = &st.Members[len(st.Members)-1]
	}
	ms.HeldSince = at
}
