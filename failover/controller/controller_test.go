package controller

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"tripod.dev/tripod/failover/evidence"
	"tripod.dev/tripod/hub/api/v1alpha1"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

func TestACenterIsLostAndItsEvidenceVerifies(t *testing.T) {
	h := newHub(t)
	c := h.member("hub-north-2", h.Client)
	stop := h.lead(c)
	defer stop()
	h.until("formed and protected", h.protected)
	h.fleet.lose("north-1")
	begin := time.Now()
	h.until("run completed", h.completed)
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("the engine took %v with agents that answer at once", took)
	}
	run := h.runs()[0]
	measured, err := evidence.Measure(h.chain(t, run.Name))
	if err != nil {
		t.Fatal(err)
	}
	if measured.RTO.Milliseconds() != 5200 || run.Status.Measured.RTOSeconds != "5.200" || measured.RPO != "0" {
		t.Errorf("evidence says %+v, the run %+v", measured, run.Status.Measured)
	}
	if d := h.dataset(); d.Status.Primary != "north-2" || d.Status.Epoch != 2 {
		t.Errorf("dataset %+v", d.Status)
	}
	var events corev1.EventList
	h.until("events written", func() bool {
		return h.List(context.Background(), &events) == nil && len(events.Items) >= 4
	})
}

// TestTheEngineLooksWhenALeaseEnds: a tick later would be too late for some.
func TestTheEngineLooksWhenALeaseEnds(t *testing.T) {
	h := newHub(t)
	stop := h.lead(h.member("hub-north-2", h.Client))
	h.until("formed and protected", h.protected)
	stop()
	h.fleet.lose("north-1")
	h.fleet.ends = time.Now().Add(100 * time.Millisecond)
	c := h.member("hub-north-2", h.Client)
	c.cfg.Tick = time.Hour
	defer h.lead(c)()
	h.until("run begun", func() bool { return len(h.runs()) == 1 })
}

// TestTheRunSurvivesTheLeaderAtEveryWrite kills the leader just after each of
// its writes in turn (invariant I6).
func TestTheRunSurvivesTheLeaderAtEveryWrite(t *testing.T) {
	for n := int64(1); n <= 14; n++ {
		h := newHub(t)
		stop := h.lead(h.member("hub-south-1", h.Client))
		h.until("formed and protected", h.protected)
		stop()
		var writes atomic.Int64
		dies := make(chan struct{})
		count := func() {
			if writes.Add(1) == n {
				close(dies)
			}
		}
		watched := interceptor.NewClient(h.Client.(client.WithWatch), interceptor.Funcs{
			Create: func(ctx context.Context, cl client.WithWatch, obj client.Object, o ...client.CreateOption) error {
				defer count()
				return cl.Create(ctx, obj, o...)
			},
			SubResourceUpdate: func(ctx context.Context, cl client.Client, sub string, obj client.Object, o ...client.SubResourceUpdateOption) error {
				if writes.Load() >= n {
					return context.Canceled
				}
				defer count()
				return cl.SubResource(sub).Update(ctx, obj, o...)
			}})
		h.fleet.lose("north-1")
		stop = h.lead(h.member("hub-south-1", watched))
		select {
		case <-dies:
		case <-time.After(5 * time.Second):
		}
		stop()
		stop = h.lead(h.member("hub-north-2", h.Client))
		h.until("run completed by the second leader", h.completed)
		h.until("evidence archived", h.archived)
		stop()
		d := h.dataset()
		if d.Status.Epoch != 2 || d.Status.Primary != "north-2" {
			t.Errorf("leader died after write %d: dataset %+v", n, d.Status)
		}
		h.chain(t, h.runs()[0].Name)
	}
}

func TestAStaleCacheOnlyCostsAConflict(t *testing.T) {
	h := newHub(t)
	old := newObjects(h.Client, h.Client)
	var l v1alpha1.DatasetList
	before, err := list(t.Context(), old, &l, pointers(&l.Items))
	if err != nil {
		t.Fatal(err)
	}
	stale := before[0].DeepCopy()
	c := h.member("hub-north-1", h.Client)
	fresh := h.dataset()
	fresh.Status.Epoch = 9
	if err := h.Status().Update(t.Context(), fresh); err != nil {
		t.Fatal(err)
	}
	stale.Status.Epoch = 2
	if again := c.write(t.Context(), stale, c.status(stale), false); !again {
		t.Error("a conflict must lead to another turn")
	}
	if got := h.dataset().Status.Epoch; got != 9 {
		t.Errorf("a stale write went through: epoch %d", got)
	}
}

func TestADirectiveCarriesTermRevisionAndAddresses(t *testing.T) {
	h := newHub(t)
	stop := h.lead(h.member("hub-north-1", h.Client))
	h.until("formed and protected", h.protected)
	stop()
	for _, d := range h.fleet.carried {
		if d.GetIncarnation() != 1 || d.GetTerm() != 7 || d.GetRevision() == 0 || d.GetEpoch() != 1 {
			t.Errorf("directive %v", d)
		}
		if d.GetVerb() == agentv1.Verb_VERB_PROMOTE && d.GetRole().GetAddress() != "10.0.0.1:5432" {
			t.Errorf("a copy is not told where others reach it: %v", d)
		}
		if d.GetVerb() == agentv1.Verb_VERB_FOLLOW && d.GetRole().GetPrimaryAddress() != "10.0.0.1:5432" {
			t.Errorf("a replica is not told where the primary is: %v", d)
		}
	}
	if h.fleet.promoted[1] != 1 {
		t.Errorf("epoch 1 was promoted %d times", h.fleet.promoted[1])
	}
}

func TestALaggingLeaseBookProvesNothing(t *testing.T) {
	h := newHub(t)
	h.fleet.lose("north-1")
	c := h.member("hub-north-1", h.Client)
	applied := int64(41)
	c.cfg.Applied = func() int64 { return applied }
	if over, _ := c.fence("north-1", 42); over {
		t.Error("a book that has not applied the fencing revision was believed")
	}
	applied = 42
	if over, _ := c.fence("north-1", 42); !over {
		t.Error("a book that has applied the fencing revision was not believed")
	}
}
