package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"tripod.dev/tripod/hub/api/endpoint"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// kubeconfig writes a kubeconfig of the whole fleet, or mends one.
type kubeconfig struct {
	door    *connection
	server  string
	each    bool
	refresh string
}

func newKubeconfigCommand(door *connection) *cobra.Command {
	k := kubeconfig{door: door}
	c := &cobra.Command{
		Use:   "kubeconfig",
		Short: "Print a kubeconfig with the contexts hub, fleet, every cluster and every application",
		Long: `Print a kubeconfig for kubectl and everything like it, with the credentials in use
now. Its contexts are

  hub              the hub itself
  fleet            all clusters at once, for reading
  CLUSTER          one cluster
  NAMESPACE/NAME   an application, in the cluster where it is active

and each of them again as CONTEXT@MEMBER for every member of the hub.

kubectl knows one server for each context, and does not look for another when
that one is away. The plain contexts lead to the member that answered now. When
it dies, any of these helps:

  kubectl --context CONTEXT@OTHERMEMBER …          without changing anything
  tripodctl kubeconfig --refresh FILE              the plain contexts lead to a
                                                   member that answers; run it from
                                                   cron, or before a script
  tripodctl kubeconfig --server NAME               NAME is in your DNS, with the
                                                   addresses of all members: kubectl
                                                   tries one after the other

With a name, a member whose machine refuses is passed over at once. One that
answers nothing at all, for instance because its center has no power, costs each
new connection about 10 s (30 s divided by the number of addresses), until it is
taken out of the DNS. tripodctl itself needs none of this: it reads the members
from the kubeconfig.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if k.refresh != "" {
				return k.mend(cmd.Context(), cmd.OutOrStdout())
			}
			return k.write(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	c.Flags().StringVar(&k.server, "server", "", "HOST[:PORT] that the plain contexts lead to (default the member that answered)")
	c.Flags().BoolVar(&k.each, "each-member", true, "also write CONTEXT@MEMBER for every member of the hub")
	c.Flags().StringVar(&k.refresh, "refresh", "", "FILE made by this command: have its plain contexts lead to a member that answers")
	return c
}

// write prints a new kubeconfig.
func (k kubeconfig) write(ctx context.Context, out, notes io.Writer) error {
	config, err := k.door.restConfig()
	if err != nil {
		return err
	}
	credentials, err := k.door.credentials()
	if err != nil {
		return err
	}
	routes, err := k.routes(ctx, notes)
	if err != nil {
		return err
	}
	members, err := k.members(ctx, notes)
	if err != nil {
		return err
	}
	server, err := firstMember(ctx, addresses(members))
	if err != nil {
		return err
	}
	if named := endpoint.Parse(k.server, endpoint.APIPort); len(named) > 0 {
		server = named[0]
	}
	authority, err := k.door.trusted(ctx, config)
	if err != nil {
		return err
	}
	made := fleetConfig{
		server: server, members: members, each: k.each, routes: routes, credentials: credentials,
		authority: authority,
	}
	encoded, err := made.config()
	if err != nil {
		return err
	}
	text, err := clientcmd.Write(*encoded)
	if err != nil {
		return fmt.Errorf("encode the kubeconfig: %w", err)
	}
	_, err = out.Write(text)
	return err
}

// routes are the contexts to write: what this person may list.
func (k kubeconfig) routes(ctx context.Context, notes io.Writer) ([]fleetRoute, error) {
	api, err := k.door.client()
	if err != nil {
		return nil, err
	}
	routes := []fleetRoute{{name: "hub"}, {name: "fleet", path: "/fleet"}}
	var clusters v1alpha1.ClusterList
	switch err := api.List(ctx, &clusters); {
	case apierrors.IsForbidden(err):
		fmt.Fprintln(notes, "no contexts of clusters: you may not list clusters")
	case err != nil:
		return nil, fmt.Errorf("list clusters: %w", err)
	}
	for _, c := range clusters.Items {
		routes = append(routes, clusterRoute(c.Name))
	}
	var applications v1alpha1.ApplicationList
	switch err := api.List(ctx, &applications); {
	case apierrors.IsForbidden(err):
		fmt.Fprintln(notes, "no contexts of applications: you may not list applications in all namespaces")
	case err != nil:
		return nil, fmt.Errorf("list applications: %w", err)
	}
	for _, a := range applications.Items {
		routes = append(routes, applicationRoute(a.Namespace, a.Name))
	}
	return routes, nil
}

// members are those that the hub names, or else those that are known here.
func (k kubeconfig) members(ctx context.Context, notes io.Writer) ([]fleetMember, error) {
	named, err := k.door.namedMembers(ctx)
	if err == nil && len(named) > 0 {
		return named, nil
	}
	config, configErr := k.door.restConfig()
	if configErr != nil {
		return nil, configErr
	}
	fmt.Fprintf(notes, "the hub does not say which members it has (%v): writing those that are known here\n", plain(err))
	if members := k.door.knownMembers(); len(members) > 0 {
		return members, nil
	}
	var members []fleetMember
	for _, address := range k.door.members(config) {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, fmt.Errorf("read the member's address %q: %w", address, err)
		}
		members = append(members, fleetMember{Name: host, Server: address})
	}
	return members, nil
}

// namedMembers asks the hub for its members.
func (c *connection) namedMembers(ctx context.Context) ([]fleetMember, error) {
	asked, err := c.askMembers(ctx)
	if err != nil {
		return nil, err
	}
	var members []fleetMember
	for _, m := range asked {
		members = append(members, fleetMember{Name: m.GetName(), Server: net.JoinHostPort(m.GetAddress(), endpoint.APIPort)})
	}
	return members, nil
}

// credentials are those of the context in use, as the kubeconfig has them: a
// login that runs a program goes on to do so.
func (c *connection) credentials() (*clientcmdapi.AuthInfo, error) {
	raw, name, err := c.load()
	if err != nil {
		return nil, err
	}
	name = cmp.Or(name, raw.CurrentContext)
	used := raw.Contexts[name]
	if used == nil || raw.AuthInfos[used.AuthInfo] == nil {
		return nil, fmt.Errorf("the kubeconfig's context %q names no user", name)
	}
	return raw.AuthInfos[used.AuthInfo].DeepCopy(), nil
}
