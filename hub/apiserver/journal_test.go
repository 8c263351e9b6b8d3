package apiserver

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// BenchmarkJournal is what one write of a run's journal takes, of which a failover has
// six: 8 KB, half of them evidence, 64 at once; as a client of the API server and as the
// engine. Its processor time, cpu-µs/op, is of the whole process: a client's part, the watch
// cache of one member, and an etcd without syncs.
func BenchmarkJournal(b *testing.B) {
	h := startHub(b, nil)
	c := h.typed(b, h.server.Loopback())
	for name, write := range map[string]func(context.Context, client.Object) error{
		"client": func(ctx context.Context, obj client.Object) error { return c.Status().Update(ctx, obj) },
		"engine": h.server.Statuses().Update,
	} {
		b.Run(name, func(b *testing.B) {
			const runs = 64
			journals := make(chan *v1alpha1.RecoveryRun, runs)
			for i := range runs {
				run := testRun(fmt.Sprintf("%s-%d-%d", name, b.N, i))
				if err := c.Create(b.Context(), run); err != nil {
					b.Fatal(err)
				}
				run.Status = journal()
				journals <- run
			}
			var writes atomic.Int64
			before := processorTime(b)
			b.ReportAllocs()
			b.SetParallelism(runs / 2)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					run := <-journals
					run.Status.Message = fmt.Sprintf("write %d", writes.Add(1))
					if err := write(context.Background(), run); err != nil {
						b.Error(err)
					}
					journals <- run
				}
			})
			b.ReportMetric(float64((processorTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
		})
	}
}

// journal is one that has come as far as Verifying.
func journal() v1alpha1.RecoveryRunStatus {
	now := metav1.NowMicro()
	s := v1alpha1.RecoveryRunStatus{
		Phase: v1alpha1.RunVerifying, Automatic: true,
		Datasets: []v1alpha1.RunDataset{{Name: "ledger", PreviousPrimary: "north", Target: "south", PreviousEpoch: 1, Epoch: 2, FencingRevision: 4711,
			FenceProof: v1alpha1.FenceElapsed, Promoted: true}},
		Timeline: v1alpha1.RunTimeline{LastHeard: &now, DetectedAt: &now, FencedAt: &now, PromotedAt: &now, RoutedAt: &now},
		Evidence: v1alpha1.EvidenceHead{Head: "sha256:" + strings.Repeat("a", 64), Records: 12, Signature: strings.Repeat("c", 96),
			Recent: strings.Repeat(`{"sequence":1,"previous":"sha256:`+strings.Repeat("b", 64)+`","run":"failover-app-1","kind":"decision"}`+"\n", 36)},
	}
	for i := range 12 {
		s.Steps = append(s.Steps, v1alpha1.RunStep{Name: fmt.Sprintf("step-%d", i), Cluster: "south", Dataset: "ledger", Attempt: 1, State: v1alpha1.StepSucceeded,
			Message: "as it was asked to do, and with a proof that it was", StartedAt: now, FinishedAt: &now})
	}
	for _, kind := range []string{"Fenced", "Promoted", "Routed", "Verified"} {
		s.Conditions = append(s.Conditions, metav1.Condition{Type: kind, Status: metav1.ConditionTrue, Reason: "AsAsked", Message: "it was", LastTransitionTime: metav1.Now()})
	}
	return s
}
