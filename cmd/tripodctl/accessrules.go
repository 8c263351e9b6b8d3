package main

import (
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
)

// rights are the RBAC objects of one place: the hub or a cluster.
type rights struct {
	// place is "the hub" or "cluster NAME".
	place               string
	clusterRoles        []rbacv1.ClusterRole
	clusterRoleBindings []rbacv1.ClusterRoleBinding
	roles               []rbacv1.Role
	roleBindings        []rbacv1.RoleBinding
}

// asked is one thing that somebody may or may not do.
type asked struct {
	verb, group, resource, subresource, namespace, name string
}

func (a asked) String() string {
	text := a.verb + " " + a.resource
	if a.subresource != "" {
		text += "/" + a.subresource
	}
	if a.group != "" {
		text += "." + a.group
	}
	if a.name != "" {
		text += " " + a.name
	}
	if a.namespace != "" {
		text += " in namespace " + a.namespace
	}
	return text
}

// reason is why somebody may: a binding, its role, and the rule of that role.
type reason struct {
	subject rbacv1.Subject
	binding string
	role    string
	rule    int
	text    string
}

func (r reason) String() string {
	return fmt.Sprintf("%s gives it %s, whose rule %d is %s", r.binding, r.role, r.rule+1, r.text)
}

// allows is RBAC's own judgement: any of verbs, groups, resources and names that
// fits, as in k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac.
func allows(rule rbacv1.PolicyRule, a asked) bool {
	resource := a.resource
	if a.subresource != "" {
		resource += "/" + a.subresource
	}
	has := func(list []string, values ...string) bool {
		return slices.ContainsFunc(values, func(v string) bool { return slices.Contains(list, v) })
	}
	return has(rule.Verbs, a.verb, rbacv1.VerbAll) && has(rule.APIGroups, a.group, rbacv1.APIGroupAll) &&
		(has(rule.Resources, resource, rbacv1.ResourceAll) || a.subresource != "" && has(rule.Resources, "*/"+a.subresource)) &&
		(len(rule.ResourceNames) == 0 || a.name != "" && slices.Contains(rule.ResourceNames, a.name))
}

// reasons are all ways by which anybody may do a.
func (r rights) reasons(a asked) []reason {
	var all []reason
	add := func(binding string, subjects []rbacv1.Subject, ref rbacv1.RoleRef, namespace string) {
		role, rules := r.role(ref, namespace)
		for i, rule := range rules {
			if !allows(rule, a) {
				continue
			}
			for _, subject := range subjects {
				if subject.Kind == rbacv1.ServiceAccountKind && subject.Namespace == "" {
					subject.Namespace = namespace
				}
				all = append(all, reason{subject, binding, role, i, describe(rule)})
			}
			return // one rule is enough to say why
		}
	}
	for _, b := range r.clusterRoleBindings {
		add("ClusterRoleBinding "+b.Name, b.Subjects, b.RoleRef, "")
	}
	for _, b := range r.roleBindings {
		if a.namespace != "" && b.Namespace == a.namespace {
			add("RoleBinding "+b.Namespace+"/"+b.Name, b.Subjects, b.RoleRef, b.Namespace)
		}
	}
	return all
}

func (r rights) role(ref rbacv1.RoleRef, namespace string) (string, []rbacv1.PolicyRule) {
	if ref.Kind == "ClusterRole" {
		for _, role := range r.clusterRoles {
			if role.Name == ref.Name {
				return "ClusterRole " + role.Name, role.Rules
			}
		}
		return "", nil
	}
	for _, role := range r.roles {
		if role.Name == ref.Name && role.Namespace == namespace {
			return "Role " + role.Namespace + "/" + role.Name, role.Rules
		}
	}
	return "", nil
}

func describe(rule rbacv1.PolicyRule) string {
	var groups []string
	for _, g := range rule.APIGroups {
		groups = append(groups, strings.ReplaceAll(`"`+g+`"`, `""`, "core"))
	}
	text := fmt.Sprintf("%s on %s of %s", strings.Join(rule.Verbs, ","), strings.Join(rule.Resources, ","), strings.Join(groups, ","))
	if len(rule.ResourceNames) > 0 {
		text += " named " + strings.Join(rule.ResourceNames, ",")
	}
	return text
}

// who is a person as RBAC sees them.
type who struct {
	user   string
	groups []string
}

// is says whether a subject of a binding is this person. Everybody who is
// authenticated is in system:authenticated.
func (w who) is(subject rbacv1.Subject) bool {
	switch subject.Kind {
	case rbacv1.UserKind:
		return subject.Name == w.user
	case rbacv1.GroupKind:
		return slices.Contains(w.groups, subject.Name) || slices.Contains(w.implied(), subject.Name)
	case rbacv1.ServiceAccountKind:
		return w.user == "system:serviceaccount:"+subject.Namespace+":"+subject.Name
	}
	return false
}

func (w who) implied() []string {
	groups := []string{"system:authenticated"}
	if rest, ok := strings.CutPrefix(w.user, "system:serviceaccount:"); ok {
		namespace, _, _ := strings.Cut(rest, ":")
		groups = append(groups, "system:serviceaccounts", "system:serviceaccounts:"+namespace)
	}
	return groups
}

// explain is why somebody may do a here; empty when they may not.
func (r rights) explain(w who, a asked) []string {
	var lines []string
	if slices.Contains(w.groups, "system:masters") {
		lines = append(lines, "group system:masters may do everything, whatever the bindings say")
	}
	for _, found := range r.reasons(a) {
		if w.is(found.subject) {
			lines = append(lines, subjectText(found.subject)+": "+found.String())
		}
	}
	return lines
}

func subjectText(s rbacv1.Subject) string {
	if s.Kind == rbacv1.ServiceAccountKind {
		return "service account " + s.Namespace + "/" + s.Name
	}
	return strings.ToLower(s.Kind) + " " + s.Name
}
