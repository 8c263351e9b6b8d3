package effector

import (
	"context"
	"fmt"
	"maps"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// ClusterSecrets are the Secrets of the agent's own cluster. What was read once
// is answered from memory while the API server does not answer.
type ClusterSecrets struct {
	client kubernetes.Interface

	mu    sync.Mutex
	known map[key]map[string][]byte
}

// NewClusterSecrets reads nothing yet.
func NewClusterSecrets(client kubernetes.Interface) *ClusterSecrets {
	return &ClusterSecrets{client: client, known: map[key]map[string][]byte{}}
}

// Secret returns nil data for a Secret that does not exist.
func (c *ClusterSecrets) Secret(ctx context.Context, namespace, name string) (map[string][]byte, error) {
	secret, err := c.client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case apierrors.IsNotFound(err):
		delete(c.known, key{namespace, name})
		return nil, nil
	case err != nil:
		if known, ok := c.known[key{namespace, name}]; ok {
			return maps.Clone(known), nil
		}
		return nil, fmt.Errorf("read Secret %s/%s: %w", namespace, name, err)
	}
	c.known[key{namespace, name}] = secret.Data
	return maps.Clone(secret.Data), nil
}

// PutSecret creates or replaces a Secret.
func (c *ClusterSecrets) PutSecret(ctx context.Context, namespace, name string, data map[string][]byte) error {
	secrets := c.client.CoreV1().Secrets(namespace)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace,
		Labels: map[string]string{"app.kubernetes.io/managed-by": "tripod-agent"}}, Data: data}
	_, err := secrets.Create(ctx, secret, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		_, err = secrets.Update(ctx, secret, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("write Secret %s/%s: %w", namespace, name, err)
	}
	return nil
}
