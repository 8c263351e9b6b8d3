package failover

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// What was seen of a copy is an account. What the next leader rests on is none.
func TestOnlyWhatWasSeenIsAnAccount(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*v1alpha1.DatasetStatus)
		want   bool
	}{
		"its state":             {func(st *v1alpha1.DatasetStatus) { st.Members[1].State = v1alpha1.StateDetached }, true},
		"its position":          {func(st *v1alpha1.DatasetStatus) { st.Members[1].Position = "0/1" }, true},
		"when it was seen":      {func(st *v1alpha1.DatasetStatus) { st.Members[1].ObservedAt = metav1.NowMicro() }, true},
		"whether it serves":     {func(st *v1alpha1.DatasetStatus) { st.Conditions = nil }, true},
		"what its volume holds": {func(st *v1alpha1.DatasetStatus) { st.Members[1].Copy = v1alpha1.CopyPartial }, false},
		"whether it is guarded": {func(st *v1alpha1.DatasetStatus) { st.Members[0].Guarded = v1alpha1.Unguarded }, false},
		"since when it is held": {func(st *v1alpha1.DatasetStatus) { st.Members[0].HeldSince = &metav1.MicroTime{} }, false},
		"who may take over":     {func(st *v1alpha1.DatasetStatus) { st.SyncSet = nil }, false},
		"who is the primary":    {func(st *v1alpha1.DatasetStatus) { st.Primary = "b" }, false},
		"who is a member":       {func(st *v1alpha1.DatasetStatus) { st.Members = st.Members[:1] }, false},
		"its state and who is the primary": {func(st *v1alpha1.DatasetStatus) {
			st.Members[1].State, st.Primary = v1alpha1.StateDetached, "b"
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			was := &v1alpha1.DatasetStatus{Phase: v1alpha1.DatasetSteady, Primary: "a", Epoch: 1, SyncSet: []string{"a", "b"},
				Conditions: []metav1.Condition{{Type: v1alpha1.ConditionAvailable}},
				Members: []v1alpha1.DatasetMemberStatus{{Cluster: "a", State: v1alpha1.StateRunning, Guarded: v1alpha1.Guarded},
					{Cluster: "b", State: v1alpha1.StateStreaming, Guarded: v1alpha1.Guarded, Copy: v1alpha1.CopyWhole}}}
			now := was.DeepCopy()
			tc.change(now)
			if got := reported(now, was); got != tc.want {
				t.Errorf("an account: %t, want %t", got, tc.want)
			}
		})
	}
}

// Positions change with every write of an application. A fleet of a thousand datasets
// must not keep the hub busy with them.
func TestPositionsAloneAreWrittenNowAndThen(t *testing.T) {
	for name, tc := range map[string]struct {
		datasets int
		after    time.Duration
		state    v1alpha1.MemberState
		want     bool
	}{
		"few datasets, soon":                   {3, 29 * time.Second, v1alpha1.StateStreaming, false},
		"few datasets":                         {3, 30 * time.Second, v1alpha1.StateStreaming, true},
		"a thousand":                           {1000, 199 * time.Second, v1alpha1.StateStreaming, false},
		"a thousand, later":                    {1000, 200 * time.Second, v1alpha1.StateStreaming, true},
		"a thousand, and its state is another": {1000, time.Second, v1alpha1.StateDetached, true},
	} {
		t.Run(name, func(t *testing.T) {
			seen := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
			s := &Snapshot{Datasets: make([]*v1alpha1.Dataset, tc.datasets), Now: seen.Add(tc.after)}
			was := v1alpha1.DatasetMemberStatus{State: v1alpha1.StateStreaming, Copy: v1alpha1.CopyWhole, Position: "0/1", ObservedAt: metav1.NewMicroTime(seen)}
			now := s.observed(was, Observed{State: tc.state, Copy: v1alpha1.CopyWhole, Position: "0/2"})
			if got := now.Position == "0/2"; got != tc.want {
				t.Errorf("written: %t, want %t", got, tc.want)
			}
		})
	}
}
