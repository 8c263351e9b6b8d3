package apiserver

import (
	"context"
	"fmt"
	"reflect"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/dynamic"
	"k8s.io/kubernetes/pkg/apis/rbac"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// labelAggregateToAgent adds a ClusterRole of a cluster to the agent's rights there.
const labelAggregateToAgent = "tripod.dev/aggregate-to-agent"

// rightsCheck guards the way by which rights in whole clusters come from the hub.
// Upstream's RBAC has seen to it that who writes a role or binding in the hub holds
// what it gives; but what somebody holds in the hub, which runs nothing, may be
// worth more in a cluster. So the way itself is a right: verb place, by name, for
// who writes a ClusterRole or ClusterRoleBinding that is meant for clusters, and for
// who writes a placement that selects one.
type rightsCheck struct {
	*admission.Handler
	roles      dynamic.NamespaceableResourceInterface
	authorizer authorizer.Authorizer
}

var (
	_ admission.ValidationInterface  = (*rightsCheck)(nil)
	_ initializer.WantsDynamicClient = (*rightsCheck)(nil)
	_ initializer.WantsAuthorizer    = (*rightsCheck)(nil)

	roleResource    = rbacv1.SchemeGroupVersion.WithResource("clusterroles")
	bindingResource = rbacv1.SchemeGroupVersion.WithResource("clusterrolebindings")
)

func newRightsCheck() *rightsCheck {
	return &rightsCheck{Handler: admission.NewHandler(admission.Create, admission.Update)}
}

func (c *rightsCheck) SetDynamicClient(client dynamic.Interface) {
	c.roles = client.Resource(roleResource)
}

func (c *rightsCheck) SetAuthorizer(a authorizer.Authorizer) { c.authorizer = a }

func (c *rightsCheck) ValidateInitialization() error {
	if c.roles == nil || c.authorizer == nil {
		return fmt.Errorf("%s: no client or no authorizer", admissionRights)
	}
	return nil
}

// Validate implements admission.ValidationInterface.
func (c *rightsCheck) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetSubresource() != "" {
		return nil
	}
	switch object := a.GetObject().(type) {
	case *rbac.ClusterRole:
		return c.validateRole(ctx, a, object)
	case *rbac.ClusterRoleBinding:
		return c.validateBinding(ctx, a, object)
	case *unstructured.Unstructured:
		if old, ok := a.GetOldObject().(*unstructured.Unstructured); ok && reflect.DeepEqual(old.Object["spec"], object.Object["spec"]) {
			return nil
		}
		switch a.GetResource().GroupResource() {
		case v1alpha1.Resource("placements"):
			return c.validatePlacement(ctx, a, object)
		case v1alpha1.Resource("recoveryplans"):
			return c.validatePlan(ctx, a, object)
		}
	}
	return nil
}

func (c *rightsCheck) validateRole(ctx context.Context, a admission.Attributes, role *rbac.ClusterRole) error {
	if role.Labels[v1alpha1.LabelPlace] != "true" {
		return nil
	}
	if role.AggregationRule != nil {
		return admission.NewForbidden(a, fmt.Errorf("what it aggregates differs from cluster to cluster: list the rules, or take the label %s away", v1alpha1.LabelPlace))
	}
	if _, set := role.Labels[labelAggregateToAgent]; set {
		return admission.NewForbidden(a, fmt.Errorf("label %s gives the rights to the cluster's agent: that is done in the cluster, not from the hub", labelAggregateToAgent))
	}
	return c.mayPlace(ctx, a, roleResource, role.Name)
}

// validateBinding also sees to it that the role is the same one in every cluster: a
// name that only a cluster has could be any role there.
func (c *rightsCheck) validateBinding(ctx context.Context, a admission.Attributes, binding *rbac.ClusterRoleBinding) error {
	if binding.Labels[v1alpha1.LabelPlace] != "true" {
		return nil
	}
	if err := c.mayPlace(ctx, a, bindingResource, binding.Name); err != nil {
		return err
	}
	name := binding.RoleRef.Name
	if slices.Contains(v1alpha1.RolesOfEveryCluster, name) {
		return nil
	}
	role, err := c.roles.Get(ctx, name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return apierrors.NewInternalError(fmt.Errorf("read ClusterRole %s of the binding: %w", name, err))
	}
	if err != nil || role.GetLabels()[v1alpha1.LabelPlace] != "true" {
		return admission.NewForbidden(a, fmt.Errorf("it is meant for clusters and binds ClusterRole %s, which is not: bind one of %q, or one with the label %s=true",
			name, v1alpha1.RolesOfEveryCluster, v1alpha1.LabelPlace))
	}
	return nil
}

func (c *rightsCheck) validatePlacement(ctx context.Context, a admission.Attributes, object *unstructured.Unstructured) error {
	var placement v1alpha1.Placement
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &placement); err != nil {
		return apierrors.NewBadRequest(fmt.Sprintf("read the placement: %v", err))
	}
	for i, selected := range placement.Spec.Resources {
		kind := schema.FromAPIVersionAndKind(selected.APIVersion, selected.Kind)
		if !v1alpha1.ClusterWideRights(kind.Group, kind.Kind) {
			continue
		}
		if a.GetNamespace() != v1alpha1.NamespaceSystem {
			return admission.NewForbidden(a, fmt.Errorf("spec.resources[%d] is a %s, which gives rights in whole clusters: only a placement in namespace %s can select it",
				i, kind.Kind, v1alpha1.NamespaceSystem))
		}
		if selected.Name == "" {
			return admission.NewForbidden(a, fmt.Errorf("spec.resources[%d] selects every %s with a label: rights in whole clusters are selected by name", i, kind.Kind))
		}
		resource := roleResource
		if kind.Kind == "ClusterRoleBinding" {
			resource = bindingResource
		}
		if err := c.mayPlace(ctx, a, resource, selected.Name); err != nil {
			return err
		}
	}
	return nil
}

// mayPlace refuses who has not the verb, and names that are not to be given away.
func (c *rightsCheck) mayPlace(ctx context.Context, a admission.Attributes, resource schema.GroupVersionResource, name string) error {
	if v1alpha1.ReservedRights(name) {
		return admission.NewForbidden(a, fmt.Errorf("%s %q belongs to Kubernetes or to Tripod in every cluster and is not placed: choose another name", resource.Resource, name))
	}
	return c.allow(ctx, a, v1alpha1.VerbPlace, resource, name, "give clusters rights")
}

// allow refuses who has not the verb; what says what they may then not do.
func (c *rightsCheck) allow(ctx context.Context, a admission.Attributes, verb string, resource schema.GroupVersionResource, name, what string) error {
	who := a.GetUserInfo()
	decision, reason, err := c.authorizer.Authorize(ctx, authorizer.AttributesRecord{
		User: who, Verb: verb, APIGroup: resource.Group, APIVersion: resource.Version,
		Resource: resource.Resource, Name: name, ResourceRequest: true,
	})
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("ask whether %q may %s %s %s: %w", who.GetName(), verb, resource.Resource, name, err))
	}
	if decision != authorizer.DecisionAllow {
		return admission.NewForbidden(a, fmt.Errorf("%q may not %s: that takes the verb %s on %s %q %s",
			who.GetName(), what, verb, resource.Resource, name, reason))
	}
	return nil
}
