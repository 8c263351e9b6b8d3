// Package drill makes a copy of a standby's data in a namespace of its own, has it
// promoted and probed there, and removes all of it. Production is read by one base
// copy and otherwise never touched: the namespace has no way out but to the standby,
// nobody has a way in, and the copy listens on no network.
package drill

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// interval is how often the cluster is looked at.
const interval = 300 * time.Millisecond

// Order is one dataset's part of a drill.
type Order struct {
	Run                string
	Incarnation        uint64
	Namespace, Dataset string
	// Source is HOST:PORT of the standby in this cluster.
	Source string
	// StatefulSet whose pods run the standby: the drill takes its images.
	StatefulSet string
	// Secret with the database's name and the replication user's password.
	Secret string
	// Options are the dataset's parameters for its database.
	Options map[string]string
}

// Center carries drills out in one cluster. Its methods are safe for concurrent
// use, and each may be repeated.
type Center struct {
	client kubernetes.Interface
	// stopped are the places of drills that are over: a Start that comes after the Stop
	// makes nothing that nobody would remove.
	stopped sync.Map
}

// NewCenter does nothing yet.
func NewCenter(client kubernetes.Interface) *Center { return &Center{client: client} }

// Place is the namespace of an order: one per run and dataset.
func (o Order) Place() string {
	sum := sha256.Sum256([]byte(o.Run + "/" + o.Namespace + "/" + o.Dataset))
	return "tripod-drill-" + hex.EncodeToString(sum[:8])
}

// Start returns what the drill measured, when it is through. Repeated, it waits for
// what is under way, or tells the same again.
func (c *Center) Start(ctx context.Context, o Order) (string, error) {
	host, port, err := net.SplitHostPort(o.Source)
	if err != nil {
		return "", fmt.Errorf("address of the standby of %s/%s: %w", o.Namespace, o.Dataset, err)
	}
	if net.ParseIP(host) == nil {
		return "", fmt.Errorf("address %s of the standby of %s/%s: expected an IP, which the drill's network policy can name", host, o.Namespace, o.Dataset)
	}
	set, err := c.client.AppsV1().StatefulSets(o.Namespace).Get(ctx, o.StatefulSet, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("read StatefulSet %s/%s, whose images the drill takes: %w", o.Namespace, o.StatefulSet, err)
	}
	pod, err := podOf(o, set)
	if err != nil {
		return "", err
	}
	secret, err := c.client.CoreV1().Secrets(o.Namespace).Get(ctx, o.Secret, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("read Secret %s/%s: %w", o.Namespace, o.Secret, err)
	}
	if _, over := c.stopped.Load(o.Place()); over {
		return "", errRemoved
	}
	err = c.prepare(ctx, o, secret, host, port)
	if _, over := c.stopped.Load(o.Place()); over { // meanwhile, and found nothing yet
		return "", errors.Join(errRemoved, c.Stop(ctx, o))
	}
	if err != nil {
		return "", err
	}
	// A namespace's service account comes a moment after it.
	for {
		_, err = c.client.CoreV1().Pods(o.Place()).Create(ctx, pod, metav1.CreateOptions{})
		if err == nil || apierrors.IsAlreadyExists(err) {
			return c.await(ctx, o)
		}
		if !apierrors.IsForbidden(err) {
			return "", fmt.Errorf("create the drill's pod in %s: %w", o.Place(), err)
		}
		if wait(ctx) != nil {
			return "", fmt.Errorf("create the drill's pod in %s: %w", o.Place(), err)
		}
	}
}

// prepare makes the namespace and everything in it before the pod: first what
// keeps it apart.
func (c *Center) prepare(ctx context.Context, o Order, secret *corev1.Secret, host, port string) error {
	space, err := c.client.CoreV1().Namespaces().Create(ctx, namespaceOf(o), metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		space, err = c.client.CoreV1().Namespaces().Get(ctx, o.Place(), metav1.GetOptions{})
	}
	if err != nil {
		return fmt.Errorf("create namespace %s: %w", o.Place(), err)
	}
	if space.DeletionTimestamp != nil || space.Annotations[runAnnotation] != o.Run {
		return fmt.Errorf("namespace %s is being removed, or is not the drill's: ask again later", o.Place())
	}
	policy, err := policyOf(o, host, port)
	if err != nil {
		return err
	}
	_, err = c.client.NetworkingV1().NetworkPolicies(o.Place()).Create(ctx, policy, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create the drill's network policy in %s: %w", o.Place(), err)
	}
	_, err = c.client.CoreV1().Secrets(o.Place()).Create(ctx, secretOf(o, secret), metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create the drill's Secret in %s: %w", o.Place(), err)
	}
	return nil
}

// errRemoved ends a Start whose drill was stopped meanwhile.
var errRemoved = errors.New("the drill was stopped")

func (c *Center) await(ctx context.Context, o Order) (string, error) {
	for {
		pod, err := c.client.CoreV1().Pods(o.Place()).Get(ctx, podName, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err) || err == nil && pod.DeletionTimestamp != nil:
			return "", errRemoved
		case err == nil && pod.Status.Phase == corev1.PodSucceeded:
			return told(pod), nil
		case err == nil && pod.Status.Phase == corev1.PodFailed:
			return "", fmt.Errorf("the drill's pod failed: %s %s", pod.Status.Reason, told(pod))
		}
		if ended := wait(ctx); ended != nil {
			return "", fmt.Errorf("wait for the drill in %s: %w", o.Place(), errors.Join(ended, err))
		}
	}
}

// told is what the program in the pod has written.
func told(pod *corev1.Pod) string {
	for _, s := range pod.Status.ContainerStatuses {
		if s.State.Terminated != nil {
			return s.State.Terminated.Message
		}
	}
	return pod.Status.Message
}

// Stop returns when nothing of the order is left. It does not wait for a Start
// that is under way: that one ends with an error, as one that comes later does.
func (c *Center) Stop(ctx context.Context, o Order) error {
	c.stopped.Store(o.Place(), true)
	spaces := c.client.CoreV1().Namespaces()
	for {
		space, err := spaces.Get(ctx, o.Place(), metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return nil
		case err == nil && space.Annotations[runAnnotation] != o.Run:
			return fmt.Errorf("namespace %s is not that of a drill: it is left alone", o.Place())
		case err == nil && space.DeletionTimestamp == nil:
			err = spaces.Delete(ctx, o.Place(), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &space.UID}})
		}
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("remove namespace %s: %w", o.Place(), err)
		}
		if err := wait(ctx); err != nil {
			return fmt.Errorf("namespace %s is still being removed: %w", o.Place(), err)
		}
	}
}

func wait(ctx context.Context) error {
	timer := time.NewTimer(interval)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
