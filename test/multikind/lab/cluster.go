package lab

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"tripod.dev/tripod/test/multikind/center"
)

// cluster is the administrator's view of a center's cluster.
type cluster struct {
	client kubernetes.Interface
	// probe asks health addresses, which need no identity.
	probe *http.Client
}

func newCluster(admin *api.Config) (*cluster, error) {
	config, err := clientcmd.NewDefaultClientConfig(*admin, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	config.RateLimiter = nil
	config.QPS = -1
	client, err := kubernetes.NewForConfig(rest.CopyConfig(config))
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	// Components sign the certificates of their health ports themselves.
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	return &cluster{client: client, probe: &http.Client{Transport: transport}}, nil
}

func (c *cluster) awaitAPI(ctx context.Context, b *box) error {
	return await(ctx, b, center.APIServer, "the API server", func(ctx context.Context) error {
		return c.client.CoreV1().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
}

func (c *cluster) awaitControllers(ctx context.Context, b *box, nodes Nodes) error {
	for process, url := range b.plan.HealthURLs() {
		if process == center.Proxy && nodes == NodesNone {
			continue
		}
		if err := await(ctx, b, process, process, func(ctx context.Context) error { return c.healthy(ctx, url) }); err != nil {
			return err
		}
	}
	return await(ctx, b, center.ControllerManager, "the default service account", func(ctx context.Context) error {
		_, err := c.client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err
	})
}

func (c *cluster) healthy(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("ask for health: %w", err)
	}
	response, err := c.probe.Do(request)
	if err != nil {
		return fmt.Errorf("ask for health: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("ask for health: %s answered %s", url, response.Status)
	}
	return nil
}

// awaitNode waits for the node to be Ready by the word of the kubelet that runs now:
// what the API server remembers from before a power cut does not count.
func (c *cluster) awaitNode(ctx context.Context, b *box) error {
	list, err := b.client.List(ctx)
	if err != nil {
		return err
	}
	// Conditions are stamped in whole seconds.
	since := list[center.Kubelet].StartedAt.Truncate(time.Second)
	return await(ctx, b, center.Kubelet, "the node to be Ready", func(ctx context.Context) error {
		node, err := c.client.CoreV1().Nodes().Get(ctx, b.plan.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, condition := range node.Status.Conditions {
			if condition.Type != corev1.NodeReady {
				continue
			}
			if condition.Status == corev1.ConditionTrue && !condition.LastHeartbeatTime.Time.Before(since) {
				return nil
			}
			return fmt.Errorf("node %s is not Ready: %s at %s", b.plan.Name, condition.Message, condition.LastHeartbeatTime)
		}
		return fmt.Errorf("node %s has no Ready condition", b.plan.Name)
	})
}

// applyBase makes the objects of every cluster. Only a change is applied: kubectl takes
// a second of processor time.
func (l *Lab) applyBase(ctx context.Context, plan center.Plan) error {
	var hubs []center.Plan
	if l.state.Hub {
		hubs = l.plans
	}
	manifests, err := plan.BaseManifests(hubs)
	if err != nil {
		return err
	}
	record := l.path(plan.Name, "lib", "kubernetes", "base.yaml")
	if old, err := os.ReadFile(record); err == nil && bytes.Equal(old, manifests) {
		return nil
	}
	if err := l.kubectl(ctx, plan, manifests, "apply", "--server-side", "--force-conflicts", "-f", "-"); err != nil {
		return fmt.Errorf("make base objects: %w", err)
	}
	return replaceFile(record, manifests, 0o644)
}

// awaitDNS waits until the cluster's DNS has an endpoint.
func (c *cluster) awaitDNS(ctx context.Context, b *box) error {
	return await(ctx, b, center.Kubelet, "cluster DNS", func(ctx context.Context) error {
		deployment, err := c.client.AppsV1().Deployments(metav1.NamespaceSystem).Get(ctx, "coredns", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if deployment.Status.ReadyReplicas == 0 || deployment.Status.ObservedGeneration < deployment.Generation {
			return fmt.Errorf("coredns has no ready pod")
		}
		return nil
	})
}

// renew deletes the pods that run an older content of the replaced images, where that
// disturbs no database; their owners make new ones.
func (c *cluster) renew(ctx context.Context, replaced []string) error {
	var stale []string
	for _, program := range renewed {
		if slices.Contains(replaced, programImages[program]) {
			stale = append(stale, programImages[program])
		}
	}
	if len(stale) == 0 {
		return nil
	}
	pods, err := c.client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list pods of old images: %w", err)
	}
	for _, pod := range pods.Items {
		uses := func(container corev1.Container) bool { return slices.Contains(stale, container.Image) }
		if !slices.ContainsFunc(pod.Spec.Containers, uses) {
			continue
		}
		err := c.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("replace pod of an old image: %w", err)
		}
	}
	return nil
}
