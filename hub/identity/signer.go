package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// AnnotationAgentRequest on a Cluster is the UID of the signing request by
// which its agent joined. A cluster that has one joins again only with a token
// that allows it.
const AnnotationAgentRequest = "tripod.dev/agent-request"

// usedTokenLife is how long a consumed token may still read its certificate.
const usedTokenLife = 5 * time.Minute

// Reasons of the conditions that the signer sets on requests.
const (
	reasonSigned  = "TripodSigned"
	reasonRefused = "TripodRefused"
)

// Signer approves and signs the requests of agents and guards, and signs those of
// people that somebody has approved. Only the leader
// runs one; two at once do no harm, because every step is a conditional update
// that one of them loses.
type Signer struct {
	authority func() *Authority
	kube      kubernetes.Interface
	client    client.Client
	now       func() time.Time
	logger    *slog.Logger
}

// NewSigner makes a signer that works through the API server at config.
func NewSigner(i *Identity, config *rest.Config) (*Signer, error) {
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("identity: make the signer's client: %w", err)
	}
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	objects, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("identity: make the signer's client: %w", err)
	}
	return newSigner(i.Authority, kube, objects, i.config.Now, i.config.Logger), nil
}

func newSigner(a func() *Authority, kube kubernetes.Interface, objects client.Client, now func() time.Time, logger *slog.Logger) *Signer {
	return &Signer{authority: a, kube: kube, client: objects, now: now, logger: logger}
}

// Run signs until ctx ends.
func (s *Signer) Run(ctx context.Context) error {
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](50*time.Millisecond, 10*time.Second))
	informer := informers.NewSharedInformerFactory(s.kube, 0).Certificates().V1().CertificateSigningRequests().Informer()
	enqueue := func(object any) {
		if request, ok := object.(*certificatesv1.CertificateSigningRequest); ok && isOurs(request) && isOpen(request) {
			queue.Add(request.Name)
		}
	}
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    enqueue,
		UpdateFunc: func(_, object any) { enqueue(object) },
	}); err != nil {
		return fmt.Errorf("identity: watch signing requests: %w", err)
	}
	stopped := make(chan struct{})
	go func() { defer close(stopped); informer.RunWithContext(ctx) }()
	defer func() { <-stopped }()
	defer context.AfterFunc(ctx, queue.ShutDown)()
	for {
		name, down := queue.Get()
		if down {
			return nil
		}
		if err := s.handle(ctx, name); err != nil && ctx.Err() == nil {
			s.logger.Warn("cannot answer a signing request yet", "request", name, "error", err)
			queue.AddRateLimited(name)
		} else {
			queue.Forget(name)
		}
		queue.Done(name)
	}
}

func isOurs(r *certificatesv1.CertificateSigningRequest) bool {
	return r.Spec.SignerName == SignerAgent || r.Spec.SignerName == SignerGuard || isVouched(r)
}

// isOpen: neither signed nor refused.
func isOpen(r *certificatesv1.CertificateSigningRequest) bool {
	if len(r.Status.Certificate) > 0 {
		return false
	}
	for _, condition := range r.Status.Conditions {
		if condition.Type == certificatesv1.CertificateDenied || condition.Type == certificatesv1.CertificateFailed {
			return false
		}
	}
	return true
}

// refused is a verdict to be shown to the requester; any other error is passing.
type refused struct{ message string }

func (r *refused) Error() string { return r.message }

func refuse(format string, args ...any) error { return &refused{fmt.Sprintf(format, args...)} }

// handle brings one request one whole way: every step is done again, without
// effect, if the leader dies in between.
func (s *Signer) handle(ctx context.Context, name string) error {
	request, err := s.kube.CertificatesV1().CertificateSigningRequests().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	if !isOurs(request) || !isOpen(request) {
		return nil
	}
	if isVouched(request) {
		return s.signPerson(ctx, request)
	}
	parsed, granted, err := s.admit(ctx, request)
	var no *refused
	if errors.As(err, &no) {
		s.logger.Info("refused a signing request", "request", name, "user", request.Spec.Username, "reason", no.message)
		return s.deny(ctx, request, no.message)
	}
	if err != nil {
		return err
	}
	return s.sign(ctx, request, parsed, granted)
}

// admit judges the request by itself and by what the hub knows, and consumes
// the join token.
func (s *Signer) admit(ctx context.Context, object *certificatesv1.CertificateSigningRequest) (request, grant, error) {
	parsed, err := parseRequest(object)
	if err != nil {
		return request{}, grant{}, refuse("%v", err)
	}
	granted, err := parsed.judge()
	if err != nil {
		return request{}, grant{}, refuse("%v", err)
	}
	var secret *corev1.Secret
	if granted.tokenID != "" {
		if secret, err = s.token(ctx, granted, object.UID); err != nil {
			return request{}, grant{}, err
		}
	}
	cluster, err := s.cluster(ctx, granted.peer.Cluster)
	if err != nil {
		return request{}, grant{}, err
	}
	if granted.peer.Kind == KindGuard {
		return parsed, granted, s.guarded(ctx, granted.peer)
	}
	if secret == nil {
		return parsed, granted, nil
	}
	return parsed, granted, s.join(ctx, cluster, secret, object.UID)
}

func (s *Signer) cluster(ctx context.Context, name string) (*v1alpha1.Cluster, error) {
	cluster := &v1alpha1.Cluster{}
	err := s.client.Get(ctx, client.ObjectKey{Name: name}, cluster)
	if apierrors.IsNotFound(err) {
		return nil, refuse("the hub has no cluster %q: make it together with a token by `tripodctl join-token %s --region REGION --center CENTER`", name, name)
	}
	if err != nil {
		return nil, fmt.Errorf("read cluster %q: %w", name, err)
	}
	if cluster.Spec.Admission != v1alpha1.AdmissionAccepted {
		return nil, refuse("cluster %q is not accepted: set its spec.admission to %s", name, v1alpha1.AdmissionAccepted)
	}
	return cluster, nil
}

// guarded: a guard's certificate is good for one dataset that the cluster holds.
func (s *Signer) guarded(ctx context.Context, peer Peer) error {
	dataset := &v1alpha1.Dataset{}
	err := s.client.Get(ctx, client.ObjectKey{Namespace: peer.Namespace, Name: peer.Dataset}, dataset)
	if apierrors.IsNotFound(err) {
		return refuse("the hub has no dataset %s/%s for a guard in cluster %q", peer.Namespace, peer.Dataset, peer.Cluster)
	}
	if err != nil {
		return fmt.Errorf("read dataset %s/%s: %w", peer.Namespace, peer.Dataset, err)
	}
	for _, member := range dataset.Spec.Members {
		if member.Cluster == peer.Cluster {
			return nil
		}
	}
	return refuse("dataset %s/%s has no member in cluster %q: add it to spec.members", peer.Namespace, peer.Dataset, peer.Cluster)
}

// sign approves the request and issues the certificate.
func (s *Signer) sign(ctx context.Context, object *certificatesv1.CertificateSigningRequest, parsed request, granted grant) error {
	requests := s.kube.CertificatesV1().CertificateSigningRequests()
	approved, err := requests.UpdateApproval(ctx, object.Name, withCondition(object, certificatesv1.CertificateApproved,
		reasonSigned, "names exactly "+granted.leaf.commonName, s.now()), metav1.UpdateOptions{})
	if err != nil {
		return fmt.Errorf("approve: %w", err)
	}
	granted.leaf.validity = validity(object)
	der, err := s.authority().issue(granted.leaf, parsed.csr.PublicKey, s.now())
	if err != nil {
		return fmt.Errorf("sign: %w", err)
	}
	approved = approved.DeepCopy()
	approved.Status.Certificate = encodeCertificate(der)
	if _, err := requests.UpdateStatus(ctx, approved, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("store the certificate: %w", err)
	}
	s.logger.Info("signed a certificate", "request", object.Name, "name", granted.leaf.commonName, "cluster", granted.peer.Cluster)
	return nil
}

// deny records why. A request that had been approved before is failed instead,
// because the API server keeps approval and denial apart.
func (s *Signer) deny(ctx context.Context, object *certificatesv1.CertificateSigningRequest, message string) error {
	requests := s.kube.CertificatesV1().CertificateSigningRequests()
	for _, condition := range object.Status.Conditions {
		if condition.Type == certificatesv1.CertificateApproved {
			_, err := requests.UpdateStatus(ctx, withCondition(object, certificatesv1.CertificateFailed, reasonRefused, message, s.now()), metav1.UpdateOptions{})
			return wrap("record the failure", err)
		}
	}
	_, err := requests.UpdateApproval(ctx, object.Name, withCondition(object, certificatesv1.CertificateDenied, reasonRefused, message, s.now()), metav1.UpdateOptions{})
	return wrap("record the refusal", err)
}

func wrap(what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func withCondition(object *certificatesv1.CertificateSigningRequest, kind certificatesv1.RequestConditionType, reason, message string, now time.Time) *certificatesv1.CertificateSigningRequest {
	changed := object.DeepCopy()
	for _, condition := range changed.Status.Conditions {
		if condition.Type == kind {
			return changed
		}
	}
	changed.Status.Conditions = append(changed.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: kind, Status: corev1.ConditionTrue, Reason: reason, Message: message, LastUpdateTime: metav1.NewTime(now),
	})
	return changed
}
