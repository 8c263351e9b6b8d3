package apiserver

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/dynamic"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// maxApproverGroups is the limit of the kind's schema.
const maxApproverGroups = 64

// stamp writes who made an Approval or a RecoveryRun, and refuses an approval
// by who asked for the run (safety.md section 10), who may only withdraw, pause and
// resume it. Others need the verb "approve" on runs: who may order one may make Approvals, too, to be
// able to withdraw it.
type stamp struct {
	*admission.Handler
	runs, datasets dynamic.NamespaceableResourceInterface
	authorizer     authorizer.Authorizer
}

var (
	_ admission.MutationInterface    = (*stamp)(nil)
	_ admission.ValidationInterface  = (*stamp)(nil)
	_ initializer.WantsDynamicClient = (*stamp)(nil)
	_ initializer.WantsAuthorizer    = (*stamp)(nil)

	runResource     = v1alpha1.GroupVersion.WithResource("recoveryruns")
	datasetResource = v1alpha1.GroupVersion.WithResource("datasets")
)

func newStamp() *stamp { return &stamp{Handler: admission.NewHandler(admission.Create)} }

func (s *stamp) SetDynamicClient(client dynamic.Interface) {
	s.runs, s.datasets = client.Resource(runResource), client.Resource(datasetResource)
}

func (s *stamp) SetAuthorizer(a authorizer.Authorizer) { s.authorizer = a }

func (s *stamp) ValidateInitialization() error {
	if s.runs == nil || s.datasets == nil || s.authorizer == nil {
		return fmt.Errorf("%s: no client or no authorizer", admissionStamp)
	}
	return nil
}

// Admit overwrites what the client claims with what the server knows.
func (s *stamp) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	object, ok := a.GetObject().(*unstructured.Unstructured)
	if !ok || a.GetSubresource() != "" {
		return nil
	}
	who := a.GetUserInfo()
	switch a.GetResource().GroupResource() {
	case v1alpha1.Resource("approvals"):
		groups := who.GetGroups()
		if len(groups) > maxApproverGroups {
			groups = groups[:maxApproverGroups]
		}
		return setSpec(object, map[string]any{"approver": who.GetName(), "approverGroups": anys(groups)})
	case v1alpha1.Resource("recoveryruns"):
		if isHub(who) {
			return nil // the engine itself: no person asked
		}
		if parent, _, _ := unstructured.NestedString(object.Object, "spec", "parent"); parent != "" {
			return admission.NewForbidden(a, fmt.Errorf("spec.parent is %q: only the hub makes runs that belong to another one, whose approval covers them; leave it out", parent))
		}
		return setSpec(object, map[string]any{"requester": who.GetName()})
	}
	return nil
}

// Validate refuses an approval that is no second person's.
func (s *stamp) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	object, ok := a.GetObject().(*unstructured.Unstructured)
	if !ok || a.GetSubresource() != "" || a.GetResource().GroupResource() != v1alpha1.Resource("approvals") {
		return nil
	}
	if impersonated(ctx) {
		return admission.NewForbidden(a, fmt.Errorf("an approval is made with one's own credentials, not in the name of %q: do not impersonate", a.GetUserInfo().GetName()))
	}
	name, _, _ := unstructured.NestedString(object.Object, "spec", "run") // the schema has checked the type
	may := s.mayApprove(ctx, a, name)
	run, err := s.runs.Get(ctx, name, metav1.GetOptions{})
	if discard, ok := v1alpha1.ParseDiscard(name); ok && apierrors.IsNotFound(err) {
		if may != nil {
			return may
		}
		return s.validateDiscard(ctx, a, discard)
	}
	if apierrors.IsNotFound(err) {
		return admission.NewForbidden(a, fmt.Errorf("there is no run %q: `tripodctl runs` lists them", name))
	}
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("read run %q to check its requester: %w", name, err))
	}
	requester, _, _ := unstructured.NestedString(run.Object, "spec", "requester")
	decision, _, _ := unstructured.NestedString(object.Object, "spec", "decision")
	step, _, _ := unstructured.NestedString(object.Object, "spec", "step")
	steers := step == v1alpha1.StepResume || step == v1alpha1.StepRetry // the engine counts neither as an approval of the requester's
	asked := requester != "" && requester == a.GetUserInfo().GetName()
	switch {
	case asked && (decision == string(v1alpha1.DecisionReject) || steers):
		return nil
	case asked:
		return admission.NewForbidden(a, fmt.Errorf("%q asked for run %q and cannot approve it: another person has to", requester, name))
	default:
		return may
	}
}

// mayApprove refuses who has no right to decide upon the run.
func (s *stamp) mayApprove(ctx context.Context, a admission.Attributes, run string) error {
	decision, reason, err := s.authorizer.Authorize(ctx, authorizer.AttributesRecord{
		User: a.GetUserInfo(), Verb: "approve", APIGroup: runResource.Group, APIVersion: runResource.Version,
		Resource: runResource.Resource, Name: run, ResourceRequest: true,
	})
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("ask whether %q may approve run %q: %w", a.GetUserInfo().GetName(), run, err))
	}
	if decision != authorizer.DecisionAllow {
		return admission.NewForbidden(a, fmt.Errorf("%q may withdraw what they asked for, and decide upon nothing else: that takes the verb approve on recoveryruns, as role %s has it %s",
			a.GetUserInfo().GetName(), RoleApprover, reason))
	}
	return nil
}

// validateDiscard refuses the approval of a copy that is not there at that
// epoch. Nobody asked for it but the divergence itself, so anybody may approve.
func (s *stamp) validateDiscard(ctx context.Context, a admission.Attributes, discard v1alpha1.Discard) error {
	dataset, err := s.datasets.Namespace(discard.Namespace).Get(ctx, discard.Dataset, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return admission.NewForbidden(a, fmt.Errorf("there is no dataset %s/%s to discard a copy of", discard.Namespace, discard.Dataset))
	}
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("read dataset %s/%s: %w", discard.Namespace, discard.Dataset, err))
	}
	epoch, _, _ := unstructured.NestedInt64(dataset.Object, "status", "epoch")
	primary, _, _ := unstructured.NestedString(dataset.Object, "status", "primary")
	if epoch != discard.Epoch || primary == discard.Cluster {
		return admission.NewForbidden(a, fmt.Errorf("dataset %s/%s is at epoch %d with its primary in %q: its condition Diverged says what may be approved now",
			discard.Namespace, discard.Dataset, epoch, primary))
	}
	return nil
}

// impersonated reports whether one person's request came in the name of
// another. The audit event keeps both identities; the request's user is only
// the second. The hub itself passes on whom it has authenticated.
func impersonated(ctx context.Context) bool {
	audited := audit.AuditContextFrom(ctx)
	return audited != nil && audited.GetEventImpersonatedUser() != nil &&
		audited.GetEventUser().Username != user.APIServerUser
}

// isHub tells the loopback client of a member from any person.
func isHub(who user.Info) bool { return who.GetName() == user.APIServerUser }

func setSpec(object *unstructured.Unstructured, values map[string]any) error {
	for key, value := range values {
		if err := unstructured.SetNestedField(object.Object, value, "spec", key); err != nil {
			return apierrors.NewBadRequest(fmt.Sprintf("spec is no object: %v", err))
		}
	}
	return nil
}

func anys(texts []string) []any {
	all := make([]any, len(texts))
	for i, text := range texts {
		all[i] = text
	}
	return all
}

// datasetCheck refuses a dataset that no agent could drive.
type datasetCheck struct {
	*admission.Handler
	drivers []string
}

var _ admission.ValidationInterface = (*datasetCheck)(nil)

func newDatasetCheck(drivers []string) *datasetCheck {
	return &datasetCheck{Handler: admission.NewHandler(admission.Create, admission.Update), drivers: drivers}
}

func (d *datasetCheck) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	object, ok := a.GetObject().(*unstructured.Unstructured)
	if !ok || a.GetSubresource() != "" || a.GetResource().GroupResource() != v1alpha1.Resource("datasets") {
		return nil
	}
	driver, _, _ := unstructured.NestedString(object.Object, "spec", "driver") // the schema has checked the type
	for _, known := range d.drivers {
		if driver == known {
			return nil
		}
	}
	return admission.NewForbidden(a, fmt.Errorf("spec.driver %q is unknown: the drivers of this hub are %q; one that runs beside the agents is named under drivers in the configuration of every hub member", driver, d.drivers))
}
