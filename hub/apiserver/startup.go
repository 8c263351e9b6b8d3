package apiserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	extensionslisters "k8s.io/apiextensions-apiserver/pkg/client/listers/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/healthz"

	"tripod.dev/tripod/hub/api/crds"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// startup is what a hub needs before it is ready: Tripod's CRDs and roles.
type startup struct {
	logger *slog.Logger
	wanted []*apiextensionsv1.CustomResourceDefinition
	crds   extensionslisters.CustomResourceDefinitionLister

	// flowControl writes upstream's priority levels and flow schemas.
	flowControl genericapiserver.PostStartHookFunc

	// served is closed when the CRDs are as embedded and this server serves them.
	served chan struct{}
}

func newStartup(logger *slog.Logger) (*startup, error) {
	wanted, err := crds.All()
	if err != nil {
		return nil, fmt.Errorf("apiserver: %w", err)
	}
	return &startup{logger: logger, wanted: wanted, served: make(chan struct{})}, nil
}

func (s *startup) addTo(server *genericapiserver.GenericAPIServer) error {
	return errors.Join(
		server.AddPostStartHook("tripod-crds", s.installCRDs),
		server.AddPostStartHook("tripod-roles", patient(ensureRoles)),
		server.AddPostStartHook("tripod-flow-control", patient(s.flowControl)),
		server.AddPostStartHook("tripod-flows", patient(ensureFlows)),
		server.AddReadyzChecks(healthz.NamedCheck("tripod-crds", s.checkCRDs)),
	)
}

// patient runs a hook again until it succeeds or the server stops, and never
// fails: for upstream a hook that fails is fatal (see fatal.go), and the store
// may be without a quorum for longer than upstream waits.
func patient(hook genericapiserver.PostStartHookFunc) genericapiserver.PostStartHookFunc {
	return func(c genericapiserver.PostStartHookContext) error {
		_ = untilDone(c, 200*time.Millisecond, func() error { return hook(c) }) // ends only well or with the server
		return nil
	}
}

// installCRDs creates or updates the CRDs until all are as embedded.
func (s *startup) installCRDs(hook genericapiserver.PostStartHookContext) error {
	client, err := clientset.NewForConfig(hook.LoopbackClientConfig)
	if err != nil {
		return fmt.Errorf("make a client for CRDs: %w", err)
	}
	return patient(func(genericapiserver.PostStartHookContext) error {
		for _, crd := range s.wanted {
			if err := applyCRD(hook, client, crd); err != nil {
				s.logger.Warn("cannot install a CRD yet", "crd", crd.Name, "error", err)
				return err
			}
		}
		if err := s.discovered(client); err != nil {
			return err
		}
		close(s.served)
		return nil
	})(hook)
}

// discovered fails until clients that ask this server for the kinds find all.
func (s *startup) discovered(client clientset.Interface) error {
	if _, err := client.Discovery().ServerGroups(); err != nil {
		return err
	}
	found, err := client.Discovery().ServerResourcesForGroupVersion(v1alpha1.GroupVersion.String())
	if err != nil {
		return err
	}
	names := map[string]bool{}
	for _, resource := range found.APIResources {
		names[resource.Name] = true
	}
	for _, crd := range s.wanted {
		if !names[crd.Spec.Names.Plural] {
			return fmt.Errorf("CRD %s is not in discovery yet", crd.Name)
		}
	}
	return nil
}

func applyCRD(ctx context.Context, client clientset.Interface, wanted *apiextensionsv1.CustomResourceDefinition) error {
	api := client.ApiextensionsV1().CustomResourceDefinitions()
	got, err := api.Get(ctx, wanted.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = api.Create(ctx, wanted, metav1.CreateOptions{FieldManager: "tripod-hub"})
		if apierrors.IsAlreadyExists(err) {
			return nil // another member was faster; the check below still wants it as embedded
		}
		return err
	}
	if err != nil {
		return err
	}
	changed := got.DeepCopy()
	changed.Annotations = merged(changed.Annotations, wanted.Annotations)
	conversion := changed.Spec.Conversion // defaulted by the server
	wanted.Spec.DeepCopyInto(&changed.Spec)
	if changed.Spec.Conversion == nil {
		changed.Spec.Conversion = conversion
	}
	apiextensionsv1.SetDefaults_CustomResourceDefinitionSpec(&changed.Spec)
	if equality.Semantic.DeepEqual(got.Spec, changed.Spec) && equality.Semantic.DeepEqual(got.Annotations, changed.Annotations) {
		return nil
	}
	_, err = api.Update(ctx, changed, metav1.UpdateOptions{FieldManager: "tripod-hub"})
	return err
}

func merged(into, from map[string]string) map[string]string {
	all := map[string]string{}
	for key, value := range into {
		all[key] = value
	}
	for key, value := range from {
		all[key] = value
	}
	return all
}

// checkCRDs is the readiness check tripod-crds.
func (s *startup) checkCRDs(*http.Request) error {
	select {
	case <-s.served:
	default:
		return errors.New("Tripod's kinds are not served yet: the store may have no leader")
	}
	for _, crd := range s.wanted {
		got, err := s.crds.Get(crd.Name)
		if err != nil {
			return fmt.Errorf("CRD %s: %w", crd.Name, err)
		}
		if !established(got) {
			return fmt.Errorf("CRD %s is not served yet", crd.Name)
		}
	}
	return nil
}

func established(crd *apiextensionsv1.CustomResourceDefinition) bool {
	for _, condition := range crd.Status.Conditions {
		if condition.Type == apiextensionsv1.Established {
			return condition.Status == apiextensionsv1.ConditionTrue
		}
	}
	return false
}

// untilDone calls f until it succeeds or ctx ends; then it returns ctx's error.
func untilDone(ctx context.Context, pause time.Duration, f func() error) error {
	for {
		if err := f(); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}
