package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// access answers who may do what, and why, by the RBAC objects of the hub and of
// a cluster behind the gateway.
type access struct {
	door                                         *connection
	cluster, application, namespace, name, group string
	groups                                       []string
}

func newAccessCommand(door *connection) *cobra.Command {
	a := access{door: door}
	c := &cobra.Command{
		Use:   "access",
		Short: "Say who may do what in the hub or in a cluster, and why",
		Long: `Say who may do what in the hub or in a cluster, and why.

A request to a cluster is judged twice: in the hub, by "clusters/proxy" of that
cluster (or "applications/proxy"), and in the cluster, by its own RBAC. Both must
let the person through, and both are shown.

The answers are read from the RBAC objects that you may list; webhooks and other
authorizers of a cluster are not asked.`,
	}
	flags := c.PersistentFlags()
	flags.StringVar(&a.cluster, "cluster", "", "in this cluster, through the gateway (default in the hub itself)")
	flags.StringVar(&a.application, "application", "", "NAMESPACE/NAME: through this application, in its active cluster")
	flags.StringVarP(&a.namespace, "namespace", "n", "", "in this namespace (default in all)")
	flags.StringVar(&a.name, "name", "", "for the object of this name (default any)")
	flags.StringVar(&a.group, "api-group", "", "API group of the resource, for instance apps (default core)")
	explain := &cobra.Command{
		Use:     "explain USER VERB RESOURCE[/SUBRESOURCE]",
		Short:   "Say whether somebody may do something, and by which bindings and rules",
		Long:    "Say whether somebody may do something, and by which bindings and rules. Exit code 2: they may not.",
		Example: "  tripodctl access explain oidc:ann delete pods --group oidc:sre --cluster north-1 -n pay",
		Args:    cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.explain(cmd.Context(), cmd.OutOrStdout(), who{args[0], a.groups}, args[1], args[2])
		},
	}
	explain.Flags().StringSliceVar(&a.groups, "group", nil, "group of the person; may be repeated")
	c.AddCommand(explain, &cobra.Command{
		Use:     "who-can VERB RESOURCE[/SUBRESOURCE]",
		Short:   "List who may do something, and by which binding and rule",
		Example: "  tripodctl access who-can create pods/exec --cluster north-1 -n pay",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.whoCan(cmd.Context(), cmd.OutOrStdout(), args[0], args[1])
		},
	})
	return c
}

// stage is one judgement of a request.
type stage struct {
	rights rights
	asked  asked
}

// stages are the judgements that the thing asked for passes, in their order.
func (a access) stages(ctx context.Context, verb, resource string) ([]stage, error) {
	if a.cluster != "" && a.application != "" {
		return nil, errors.New("give --cluster or --application, not both")
	}
	inner := asked{verb: verb, group: a.group, namespace: a.namespace, name: a.name}
	inner.resource, inner.subresource, _ = strings.Cut(resource, "/")
	hub, err := a.read(ctx, "", "the hub")
	if err != nil {
		return nil, err
	}
	pass := asked{verb: passVerb(verb, inner.subresource), group: "tripod.dev", subresource: "proxy"}
	switch {
	case a.cluster != "":
		pass.resource, pass.name = "clusters", a.cluster
		behind, err := a.read(ctx, "/clusters/"+url.PathEscape(a.cluster), "cluster "+a.cluster)
		if err != nil {
			return nil, err
		}
		return []stage{{hub, pass}, {behind, inner}}, nil
	case a.application != "":
		var found bool
		pass.resource = "applications"
		if pass.namespace, pass.name, found = strings.Cut(a.application, "/"); !found {
			return nil, fmt.Errorf("--application is %q: give NAMESPACE/NAME", a.application)
		}
		behind, err := a.read(ctx, "/applications/"+a.application, "the active cluster of "+a.application)
		if err != nil {
			return nil, err
		}
		return []stage{{hub, pass}, {behind, inner}}, nil
	default:
		return []stage{{hub, inner}}, nil
	}
}

// passVerb is what the gateway asks RBAC for: by the method that the verb uses.
func passVerb(verb, subresource string) string {
	if slices.Contains([]string{"exec", "attach", "portforward"}, subresource) {
		return "create"
	}
	switch verb {
	case "list", "watch":
		return "get"
	case "deletecollection":
		return "delete"
	}
	return verb
}

// read lists the RBAC objects at a path of the hub.
func (a access) read(ctx context.Context, path, place string) (rights, error) {
	config, err := a.door.restConfig()
	if err != nil {
		return rights{}, err
	}
	behind := rest.CopyConfig(config)
	behind.Host = strings.TrimSuffix(config.Host, "/") + path
	client, err := kubernetes.NewForConfig(behind)
	if err != nil {
		return rights{}, fmt.Errorf("open the API of %s: %w", place, err)
	}
	return readRights(ctx, client, place)
}

func readRights(ctx context.Context, client kubernetes.Interface, place string) (rights, error) {
	found := rights{place: place}
	api := client.RbacV1()
	clusterRoles, err := api.ClusterRoles().List(ctx, metav1.ListOptions{})
	if err != nil {
		return found, fmt.Errorf("list the roles of %s: %w", place, err)
	}
	clusterRoleBindings, err := api.ClusterRoleBindings().List(ctx, metav1.ListOptions{})
	if err != nil {
		return found, fmt.Errorf("list the bindings of %s: %w", place, err)
	}
	roles, err := api.Roles("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return found, fmt.Errorf("list the roles of %s: %w", place, err)
	}
	roleBindings, err := api.RoleBindings("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return found, fmt.Errorf("list the bindings of %s: %w", place, err)
	}
	found.clusterRoles, found.clusterRoleBindings, found.roles, found.roleBindings = clusterRoles.Items, clusterRoleBindings.Items, roles.Items, roleBindings.Items
	return found, nil
}

func (a access) explain(ctx context.Context, out io.Writer, person who, verb, resource string) error {
	stages, err := a.stages(ctx, verb, resource)
	if err != nil {
		return err
	}
	if !writeExplanation(out, stages, person) {
		return errNotReady
	}
	return nil
}

// writeExplanation is true when every stage lets the person through.
func writeExplanation(out io.Writer, stages []stage, person who) bool {
	allowed := true
	for _, s := range stages {
		reasons := s.rights.explain(person, s.asked)
		if len(reasons) == 0 {
			allowed = false
			fmt.Fprintf(out, "no   in %s: %s\n       no binding of user %s", s.rights.place, s.asked, person.user)
			if len(person.groups) > 0 {
				fmt.Fprintf(out, " or of the groups %s", strings.Join(person.groups, ", "))
			}
			fmt.Fprintln(out, " allows it; `tripodctl access who-can` lists who may")
			continue
		}
		fmt.Fprintf(out, "yes  in %s: %s\n", s.rights.place, s.asked)
		for _, why := range reasons {
			fmt.Fprintf(out, "       %s\n", why)
		}
	}
	return allowed
}

func (a access) whoCan(ctx context.Context, out io.Writer, verb, resource string) error {
	stages, err := a.stages(ctx, verb, resource)
	if err != nil {
		return err
	}
	writeWhoCan(out, stages)
	return nil
}

func writeWhoCan(out io.Writer, stages []stage) {
	for _, s := range stages {
		fmt.Fprintf(out, "in %s: %s\n", s.rights.place, s.asked)
		reasons := s.rights.reasons(s.asked)
		if len(reasons) == 0 {
			fmt.Fprintln(out, "  nobody but group system:masters")
		}
		for _, r := range reasons {
			fmt.Fprintf(out, "  %s: %s\n", subjectText(r.subject), r)
		}
	}
	if len(stages) > 1 {
		fmt.Fprintln(out, "A person needs both: a line of their own, or of a group of theirs, in each list.")
	}
}
