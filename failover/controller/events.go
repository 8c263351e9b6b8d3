package controller

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// maxEventMessage is what the API takes.
const maxEventMessage = 1024

// announce writes a Kubernetes event when a run enters a phase. Events are for
// people: one that cannot be written is dropped.
func (c *Controller) announce(ctx context.Context, run *v1alpha1.RecoveryRun) {
	phase := run.Status.Phase
	if !c.recorder.entered(run.Name, phase) {
		return
	}
	c.metrics.phases.WithLabelValues(string(phase)).Inc()
	kind := corev1.EventTypeNormal
	if phase == v1alpha1.RunPaused || phase == v1alpha1.RunAborted || phase == v1alpha1.RunAwaitingApproval {
		kind = corev1.EventTypeWarning
	}
	ref := run.Spec.Application
	c.record(ctx, types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}, kind, "Recovery"+string(phase),
		fmt.Sprintf("run %s: %s -> %s is %s %s %s", run.Name, run.Spec.From.Cluster, run.Spec.To.Cluster, phase, run.Status.Reason, run.Status.Message))
}

// record writes one event about an application, beside the turn.
func (c *Controller) record(ctx context.Context, app types.NamespacedName, kind, reason, message string) {
	now := metav1.NewTime(time.Now())
	event := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: app.Namespace, GenerateName: app.Name + "."},
		InvolvedObject: corev1.ObjectReference{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Application",
			Namespace: app.Namespace, Name: app.Name},
		Reason: reason, Type: kind, Count: 1, FirstTimestamp: now, LastTimestamp: now,
		Message: message[:min(len(message), maxEventMessage)],
		Source:  corev1.EventSource{Component: "tripod-failover", Host: c.cfg.Member},
	}
	c.sender.running.Go(func() {
		bounded, cancel := context.WithTimeout(ctx, c.cfg.WriteTimeout)
		defer cancel()
		if err := c.client.Create(bounded, event); err != nil && ctx.Err() == nil {
			c.log.Debug("event dropped", "application", app.String(), "error", err)
		}
	})
}
