package memberagent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"tripod.dev/tripod/hub/api/jointoken"
)

// IdentitySecret holds the agent's key, its certificate and the hub's CA. It is
// shared by the replicas: the first one that makes it wins.
const IdentitySecret = "tripod-agent-identity"

// Keys of the identity Secret.
const (
	entryKey         = "tls.key"
	entryCertificate = "tls.crt"
	entryAuthority   = "ca.crt"
	// entryNextKey is the key of a renewal that is under way.
	entryNextKey = "next.key"
)

const (
	retryJoin    = 3 * time.Second
	lookForNewer = time.Minute
)

// enrolment gets and renews the agent's identity.
type enrolment struct {
	cluster     string
	namespace   string
	tokenFile   string
	local       kubernetes.Interface
	credentials *credentials
	// withToken and withCertificate reach the hub; tests replace them.
	withToken       func(jointoken.Token, func(*x509.Certificate)) (kubernetes.Interface, error)
	withCertificate func() (kubernetes.Interface, error)
	now             func() time.Time
	log             *slog.Logger
}

// join returns when the agent has an identity; it tries until ctx ends.
func (e *enrolment) join(ctx context.Context) error {
	for {
		err := e.attempt(ctx)
		if err == nil {
			e.log.Info("the agent has its identity", "cluster", e.cluster, "until", e.credentials.present.Load().certificate.Leaf.NotAfter)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if apierrors.IsConflict(err) { // the other replica has just stored it
			continue
		}
		e.log.Warn("the agent cannot join the hub yet", "cluster", e.cluster, "error", err)
		if err := sleep(ctx, retryJoin); err != nil {
			return err
		}
	}
}

// attempt takes the identity that is there, or completes it. Every step may be
// repeated by either replica: the key is stored before it is used, and the
// signing request is named by the key.
func (e *enrolment) attempt(ctx context.Context) error {
	secret, err := e.secret(ctx)
	if err != nil {
		return err
	}
	if len(secret.Data[entryCertificate]) > 0 {
		present, err := identityIn(secret)
		if err != nil {
			return fmt.Errorf("secret %s/%s: %w: delete it and join again with a token made by `tripodctl join-token %s --rejoin`",
				e.namespace, IdentitySecret, err, e.cluster)
		}
		if !present.expired(e.now()) {
			e.credentials.adopt(present, e.now())
			return nil
		}
		e.log.Warn("the agent's certificate has expired; joining again", "cluster", e.cluster)
	}
	certificate, authority, err := e.requestWithToken(ctx, secret.Data[entryKey])
	if err != nil {
		return err
	}
	secret.Data[entryCertificate], secret.Data[entryAuthority] = certificate, authority
	delete(secret.Data, entryGeneration) // the token knows one CA; the session tells the others
	return e.store(ctx, secret)
}

// secret returns the identity Secret with a key in it.
func (e *enrolment) secret(ctx context.Context) (*corev1.Secret, error) {
	secrets := e.local.CoreV1().Secrets(e.namespace)
	secret, err := secrets.Get(ctx, IdentitySecret, metav1.GetOptions{})
	if err == nil && len(secret.Data[entryKey]) == 0 {
		return nil, fmt.Errorf("secret %s/%s has no %s: delete it", e.namespace, IdentitySecret, entryKey)
	}
	if !apierrors.IsNotFound(err) {
		return secret, err
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	secret, err = secrets.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: e.namespace, Name: IdentitySecret},
		Data:       map[string][]byte{entryKey: key},
	}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) { // the other replica was first: its key counts
		return secrets.Get(ctx, IdentitySecret, metav1.GetOptions{})
	}
	return secret, err
}

func (e *enrolment) requestWithToken(ctx context.Context, key []byte) (certificate, authority []byte, err error) {
	text, err := os.ReadFile(e.tokenFile)
	if err != nil {
		return nil, nil, fmt.Errorf("read the join token: %w: make one with `tripodctl join-token %s` and put it into the agent's Secret", err, e.cluster)
	}
	token, err := jointoken.Parse(string(text))
	if err != nil {
		return nil, nil, err
	}
	if err := token.ForCluster(e.cluster); err != nil {
		return nil, nil, err
	}
	hub, err := e.withToken(token, func(ca *x509.Certificate) { authority = encodeCertificatePEM(ca.Raw) })
	if err != nil {
		return nil, nil, err
	}
	request, err := agentRequest(e.cluster, key)
	if err != nil {
		return nil, nil, err
	}
	certificate, err = sign(ctx, hub, requestName(e.cluster, signerAgent, token.ID, key), signerAgent, request,
		certificatesv1.UsageClientAuth, certificatesv1.UsageServerAuth)
	if apierrors.IsUnauthorized(err) {
		return nil, nil, token.Rejected()
	}
	return certificate, authority, err
}

// store writes the identity and takes it on. A conflict means that the other
// replica was first: the next attempt finds what that one wrote.
func (e *enrolment) store(ctx context.Context, secret *corev1.Secret) error {
	present, err := identityIn(secret)
	if err != nil {
		return err
	}
	if _, err := e.local.CoreV1().Secrets(e.namespace).Update(ctx, secret, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("store the agent's identity: %w", err)
	}
	e.credentials.adopt(present, e.now())
	return nil
}

// keep renews the certificate when two thirds of its life are over, and takes on
// what the other replica renewed. It runs until ctx ends.
func (e *enrolment) keep(ctx context.Context, active func() bool) error {
	for {
		if err := e.untilNewer(ctx); err != nil {
			return err
		}
		if err := e.refresh(ctx, active()); err != nil && ctx.Err() == nil {
			e.log.Warn("the agent's certificate was not renewed", "cluster", e.cluster,
				"until", e.credentials.present.Load().certificate.Leaf.NotAfter, "error", err)
		}
	}
}

// untilNewer waits until it is time to look, or the hub has told of other CAs.
func (e *enrolment) untilNewer(ctx context.Context) error {
	timer := time.NewTimer(lookForNewer)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-e.credentials.changed:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

func (e *enrolment) refresh(ctx context.Context, active bool) error {
	secret, err := e.local.CoreV1().Secrets(e.namespace).Get(ctx, IdentitySecret, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read the agent's identity: %w", err)
	}
	stored, err := identityIn(secret)
	if err != nil {
		return err
	}
	e.credentials.adopt(stored, e.now())
	if active && e.credentials.trustInto(secret) {
		// Trusted first, in the whole cluster; certificates follow.
		return e.store(ctx, secret)
	}
	if active && stored.expired(e.now()) {
		return e.attempt(ctx) // the hub does not take it any more: only a token helps
	}
	_, due := e.credentials.Outdated(stored.certificate.Leaf)
	if !active || (e.now().Before(stored.renewAt()) && !due) {
		return nil
	}
	if len(secret.Data[entryNextKey]) == 0 {
		if secret.Data[entryNextKey], err = newKey(); err != nil {
			return err
		}
		if secret, err = e.local.CoreV1().Secrets(e.namespace).Update(ctx, secret, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("store the next key: %w", err)
		}
	}
	return e.renew(ctx, secret)
}

func (e *enrolment) renew(ctx context.Context, secret *corev1.Secret) error {
	key := secret.Data[entryNextKey]
	request, err := agentRequest(e.cluster, key)
	if err != nil {
		return err
	}
	hub, err := e.withCertificate()
	if err != nil {
		return err
	}
	certificate, err := sign(ctx, hub, requestName(e.cluster, signerAgent, "renewal", key), signerAgent, request,
		certificatesv1.UsageClientAuth, certificatesv1.UsageServerAuth)
	if errors.Is(err, errDenied) {
		// A request that was refused stays refused: the next one has a new key.
		delete(secret.Data, entryNextKey)
		_, dropped := e.local.CoreV1().Secrets(e.namespace).Update(ctx, secret, metav1.UpdateOptions{})
		return errors.Join(err, dropped)
	}
	if err != nil {
		return err
	}
	secret.Data[entryCertificate], secret.Data[entryKey] = certificate, key
	delete(secret.Data, entryNextKey)
	return e.store(ctx, secret)
}

// GuardCertificate has the hub sign the certificate of a dataset's guard in this
// cluster. The request is PEM, made by whoever keeps the guard's key.
func (e *enrolment) GuardCertificate(ctx context.Context, namespace, dataset string, request []byte) (certificate, authority []byte, err error) {
	present := e.credentials.present.Load()
	if present == nil {
		return nil, nil, errNoIdentity
	}
	hub, err := e.withCertificate()
	if err != nil {
		return nil, nil, err
	}
	name := requestName(e.cluster, signerGuard, namespace+"/"+dataset, request)
	certificate, err = sign(ctx, hub, name, signerGuard, request, certificatesv1.UsageClientAuth)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate of the guard of %s/%s: %w", namespace, dataset, err)
	}
	return certificate, present.authorityPEM, nil
}
