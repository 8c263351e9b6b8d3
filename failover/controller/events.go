package controller

import (
	"cmp"
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// maxEventMessage is what the API takes.
const maxEventMessage = 1024

// announce writes a Kubernetes event when a run enters a phase. Events are for
// people: one that cannot be written is dropped.
func (c *Controller) announce(ctx context.Context, run *v1alpha1.RecoveryRun) {
	phase := run.Status.Phase
	if c.announced[run.Name] == phase {
		return
	}
	if c.announced[run.Name] = phase; failover.Finished(phase) {
		delete(c.announced, run.Name)
	}
	c.metrics.phases.WithLabelValues(string(phase)).Inc()
	kind := corev1.EventTypeNormal
	if phase == v1alpha1.RunPaused || phase == v1alpha1.RunAborted || phase == v1alpha1.RunAwaitingApproval {
		kind = corev1.EventTypeWarning
	}
	if run.Spec.Parent != "" && kind == corev1.EventTypeNormal && !failover.Finished(phase) {
		return // where a plan moves many, only how it ended and where a person is wanted
	}
	about := corev1.ObjectReference{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Application",
		Namespace: run.Spec.Application.Namespace, Name: run.Spec.Application.Name}
	if run.Spec.ForPlan() {
		about = corev1.ObjectReference{APIVersion: v1alpha1.GroupVersion.String(), Kind: "RecoveryRun", Name: run.Name}
	}
	c.record(ctx, about, kind, "Recovery"+string(phase),
		fmt.Sprintf("run %s: %s -> %s is %s %s %s", run.Name, orPlace(run.Spec.From), orPlace(run.Spec.To), phase, run.Status.Reason, run.Status.Message))
}

// tellOf records an event about an application or a plan.
func (c *Controller) tellOf(ctx context.Context, of string, name types.NamespacedName, kind, reason, message string) {
	c.record(ctx, corev1.ObjectReference{APIVersion: v1alpha1.GroupVersion.String(), Kind: of,
		Namespace: name.Namespace, Name: name.Name}, kind, reason, message)
}

// eventsAtOnce bounds the events that are written at once: a thousand applications have
// thousands to tell, while the engine has more urgent things to write.
const eventsAtOnce = 4

// record writes one event, beside the turn.
func (c *Controller) record(ctx context.Context, about corev1.ObjectReference, kind, reason, message string) {
	namespace := about.Namespace
	if namespace == "" {
		namespace = Namespace
	}
	now := metav1.NewTime(time.Now())
	event := &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: namespace, GenerateName: about.Name + "."},
		InvolvedObject: about,
		Reason:         reason, Type: kind, Count: 1, FirstTimestamp: now, LastTimestamp: now,
		Message: message[:min(len(message), maxEventMessage)],
		Source:  corev1.EventSource{Component: "tripod-failover", Host: c.cfg.Member},
	}
	c.sender.running.Go(func() {
		select {
		case c.events <- struct{}{}:
			defer func() { <-c.events }()
		case <-ctx.Done():
			return
		}
		bounded, cancel := context.WithTimeout(ctx, c.cfg.WriteTimeout)
		defer cancel()
		if err := c.client.Create(bounded, event); err != nil && ctx.Err() == nil {
			c.log.Debug("event dropped", "about", about.Name, "error", err)
		}
	})
}

// orPlace is the most exact name of a place.
func orPlace(p v1alpha1.Place) string {
	return cmp.Or(p.Cluster, p.Center, p.Region, "the best target")
}
