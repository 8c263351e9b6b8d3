package controller

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/failover/hook"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// Clusters returns a client of a cluster's API server, through the tunnel and with the
// rights of the cluster's agent, and what lets go of it.
type Clusters func(cluster string) (kubernetes.Interface, func(), error)

// newHooks makes the runner of hooks on the member's own API server.
func newHooks(cl client.Client, cached client.Reader, clusters Clusters) *hook.Runner {
	return hook.New(hook.Config{
		Cluster: clusters,
		Headers: func(ctx context.Context, name string) (map[string]string, error) {
			var secret corev1.Secret
			if err := cl.Get(ctx, client.ObjectKey{Namespace: Namespace, Name: name}, &secret); err != nil {
				return nil, fmt.Errorf("get secret %s/%s: %w", Namespace, name, err)
			}
			headers := make(map[string]string, len(secret.Data))
			for name, value := range secret.Data {
				headers[name] = string(value)
			}
			return headers, nil
		},
		View: func(ctx context.Context) (map[string]any, error) { return view(ctx, cached) },
	})
}

// view is what conditions see: the hub's own kinds, as the cache has them.
func view(ctx context.Context, cached client.Reader) (map[string]any, error) {
	out := map[string]any{}
	for name, list := range map[string]client.ObjectList{"clusters": &v1alpha1.ClusterList{}, "applications": &v1alpha1.ApplicationList{},
		"datasets": &v1alpha1.DatasetList{}, "services": &v1alpha1.GlobalServiceList{}} {
		if err := cached.List(ctx, list); err != nil {
			return nil, fmt.Errorf("list %s: %w", name, err)
		}
		whole, err := runtime.DefaultUnstructuredConverter.ToUnstructured(list)
		if err != nil {
			return nil, fmt.Errorf("show %s: %w", name, err)
		}
		if items, ok := whole["items"].([]any); ok {
			out[name] = items
		}
	}
	return out, nil
}

// hook begins one attempt of a hook unless it is in work or answered.
func (c *Controller) hook(ctx context.Context, call failover.HookCall) {
	if !c.sender.begin(call.ID) {
		return
	}
	kind := hookKind(call.Hook)
	c.log.Info("hook begun", "run", call.Run.Name, "hook", call.Hook.Name, "at", string(call.Hook.At), "kind", kind, "attempt", call.Attempt)
	c.recorder.note(failover.Note{Run: call.Run.Name, Kind: failover.NoteCommand, Subject: call.Hook.Name,
		Text: fmt.Sprintf("%s %s hook at %s within %v", call.ID, kind, call.Hook.At, call.Bound)})
	c.sender.running.Go(func() {
		result := c.hooks.Do(ctx, call)
		c.sender.answered(ctx, call.ID, result)
	})
}

func hookKind(h v1alpha1.PlanHook) string {
	switch {
	case h.HTTP != nil:
		return "http"
	case h.GRPC != nil:
		return "grpc"
	case h.Message != nil:
		return "message"
	case h.Job != nil:
		return "job"
	}
	return "wait"
}
