package apiserver

import (
	certificatesv1 "k8s.io/api/certificates/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	genericapiserver "k8s.io/apiserver/pkg/server"
	rbacrest "k8s.io/kubernetes/pkg/registry/rbac/rest"
	"k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/bootstrappolicy"

	"tripod.dev/tripod/hub/api/jointoken"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// Cluster roles that every hub has.
const (
	RoleAgent    = "tripod:agent"
	RoleJoin     = "tripod:join"
	RoleViewer   = "tripod:viewer"
	RoleOperator = "tripod:operator"
	RoleApprover = "tripod:approver"
)

// groupAgents is the organisation in the agents' certificates.
const groupAgents = "tripod:agents"

// ensureRoles reconciles upstream's roles and Tripod's, as upstream's own hook
// does with upstream's alone.
func ensureRoles(hook genericapiserver.PostStartHookContext) error {
	policy := &rbacrest.PolicyData{
		ClusterRoles:               append(append(bootstrappolicy.ClusterRoles(), bootstrappolicy.ControllerRoles()...), clusterRoles()...),
		ClusterRoleBindings:        append(append(bootstrappolicy.ClusterRoleBindings(), bootstrappolicy.ControllerRoleBindings()...), clusterRoleBindings()...),
		Roles:                      bootstrappolicy.NamespaceRoles(),
		RoleBindings:               bootstrappolicy.NamespaceRoleBindings(),
		ClusterRolesToAggregate:    bootstrappolicy.ClusterRolesToAggregate(),
		ClusterRoleBindingsToSplit: bootstrappolicy.ClusterRoleBindingsToSplit(),
	}
	return policy.EnsureRBACPolicy()(hook)
}

func clusterRoles() []rbacv1.ClusterRole {
	// A certificate holds nothing secret, and clients wait for one with
	// client-go's list and watch of a single name: system:node-bootstrapper.
	requests := rule(certificatesv1.GroupName, []string{"certificatesigningrequests"}, "create", "get", "list", "watch")
	read := []string{"get", "list", "watch"}
	write := []string{"create", "update", "patch", "delete"}
	declared := []string{"placements", "datasets", "applications", "globalservices", "recoveryplans"}
	return []rbacv1.ClusterRole{
		role(RoleAgent, nil, requests),
		role(RoleJoin, nil, requests),
		role(RoleViewer, map[string]string{"rbac.authorization.k8s.io/aggregate-to-view": "true"},
			rule(v1alpha1.GroupVersion.Group, []string{"*"}, read...),
		),
		role(RoleOperator, nil,
			rule(v1alpha1.GroupVersion.Group, []string{"*"}, read...),
			rule(v1alpha1.GroupVersion.Group, declared, write...),
			rule(v1alpha1.GroupVersion.Group, []string{"clusters"}, write...),
			rule(v1alpha1.GroupVersion.Group, []string{"recoveryruns"}, "create", "patch", "update"),
			// To withdraw what they asked for; see stamp.
			rule(v1alpha1.GroupVersion.Group, []string{"approvals"}, "create"),
		),
		role(RoleApprover, nil,
			rule(v1alpha1.GroupVersion.Group, []string{"*"}, read...),
			rule(v1alpha1.GroupVersion.Group, []string{"approvals"}, "create"),
			rule(v1alpha1.GroupVersion.Group, []string{"recoveryruns"}, "approve"),
		),
	}
}

func clusterRoleBindings() []rbacv1.ClusterRoleBinding {
	return []rbacv1.ClusterRoleBinding{
		binding(RoleAgent, groupAgents),
		binding(RoleJoin, jointoken.Group),
	}
}

func role(name string, labels map[string]string, rules ...rbacv1.PolicyRule) rbacv1.ClusterRole {
	all := map[string]string{"kubernetes.io/bootstrapping": "rbac-defaults"}
	for key, value := range labels {
		all[key] = value
	}
	return rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: all, Annotations: map[string]string{rbacv1.AutoUpdateAnnotationKey: "true"}},
		Rules:      rules,
	}
}

func rule(group string, resources []string, verbs ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: resources, Verbs: verbs}
}

func binding(role, group string) rbacv1.ClusterRoleBinding {
	return rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{
			Name:        role,
			Labels:      map[string]string{"kubernetes.io/bootstrapping": "rbac-defaults"},
			Annotations: map[string]string{rbacv1.AutoUpdateAnnotationKey: "true"},
		},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: group}},
	}
}
