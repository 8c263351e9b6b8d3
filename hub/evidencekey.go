package hub

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	failovercontroller "tripod.dev/tripod/failover/controller"
	"tripod.dev/tripod/failover/evidence"
)

// publishEvidenceKey publishes the public key that verifies the heads of the
// evidence, for auditors, and then waits for the end of the term.
func (m *Member) publishEvidenceKey(ctx context.Context) error {
	der, err := x509.MarshalPKIXPublicKey(m.identity.EvidenceKey().Public())
	if err != nil {
		return fmt.Errorf("encode the evidence key: %w", err)
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	c, err := client.New(m.apiserver.Loopback(), client.Options{Scheme: failovercontroller.Scheme()})
	if err != nil {
		return fmt.Errorf("make a client of the hub's API: %w", err)
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: evidence.Namespace}}
	if err := c.Create(ctx, namespace); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("make the namespace %s: %w", evidence.Namespace, err)
	}
	published := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: evidence.Namespace, Name: evidence.KeyConfigMap}}
	if _, err := controllerutil.CreateOrUpdate(ctx, c, published, func() error {
		published.Data = map[string]string{evidence.KeyConfigMapKey: text}
		return nil
	}); err != nil {
		return fmt.Errorf("publish the evidence key: %w", err)
	}
	<-ctx.Done()
	return ctx.Err()
}
