package identity

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub/api/jointoken"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// token finds the Secret of the join token by which the request was made and
// checks that it is good for this cluster and this request.
func (s *Signer) token(ctx context.Context, granted grant, uid types.UID) (*corev1.Secret, error) {
	cluster := granted.peer.Cluster
	again := fmt.Sprintf("make another with `tripodctl join-token %s`", cluster)
	secret, err := s.kube.CoreV1().Secrets(jointoken.Namespace).Get(ctx, jointoken.SecretName(granted.tokenID), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, refuse("the join token %q for cluster %q was revoked or has expired: %s", granted.tokenID, cluster, again)
	}
	if err != nil {
		return nil, fmt.Errorf("read the join token: %w", err)
	}
	if bound := secret.Annotations[jointoken.AnnotationCluster]; bound != cluster {
		return nil, refuse("the join token is for cluster %q and cannot join %q: %s", bound, cluster, again)
	}
	if user := secret.Annotations[jointoken.AnnotationUsedBy]; user != "" && user != string(uid) {
		return nil, refuse("the join token for cluster %q was used already: %s", cluster, again)
	}
	expires, err := time.Parse(time.RFC3339, string(secret.Data["expiration"]))
	if err != nil || !s.now().Before(expires) {
		return nil, refuse("the join token for cluster %q has expired: %s", cluster, again)
	}
	return secret, nil
}

// join consumes the token and notes on the cluster by which request its agent
// joined. Both are tied to the request's UID, so that the same request may be
// handled again but no other one can follow it.
func (s *Signer) join(ctx context.Context, cluster *v1alpha1.Cluster, secret *corev1.Secret, uid types.UID) error {
	before := cluster.Annotations[AnnotationAgentRequest]
	if before != "" && before != string(uid) && secret.Annotations[jointoken.AnnotationRejoin] != "true" {
		return refuse("cluster %q has joined already: if this is another cluster, give it another name; "+
			"if its agent lost its certificate, make a token with `tripodctl join-token %s --rejoin`", cluster.Name, cluster.Name)
	}
	if secret.Annotations[jointoken.AnnotationUsedBy] == "" {
		used := secret.DeepCopy()
		used.Annotations[jointoken.AnnotationUsedBy] = string(uid)
		used.Data["expiration"] = []byte(s.now().Add(usedTokenLife).UTC().Format(time.RFC3339))
		// The update carries the resource version: of two requests only one
		// consumes the token.
		if _, err := s.kube.CoreV1().Secrets(secret.Namespace).Update(ctx, used, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("consume the join token: %w", err)
		}
	}
	if before == string(uid) {
		return nil
	}
	joined := cluster.DeepCopy()
	if joined.Annotations == nil {
		joined.Annotations = map[string]string{}
	}
	joined.Annotations[AnnotationAgentRequest] = string(uid)
	patch := client.MergeFromWithOptions(cluster, client.MergeFromWithOptimisticLock{})
	if err := s.client.Patch(ctx, joined, patch); err != nil {
		return fmt.Errorf("note that cluster %q joined: %w", cluster.Name, err)
	}
	return nil
}
