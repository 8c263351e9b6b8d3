package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"tripod.dev/tripod/deploy/agent"
)

func newAgentManifestCommand(door *connection) *cobra.Command {
	var j joining
	params := agent.Params{}
	c := &cobra.Command{
		Use:   "agent-manifest CLUSTER",
		Short: "Print what puts the agent into a cluster: pipe it to kubectl apply -f -",
		Long: `Print what puts the agent into a cluster: pipe it to kubectl apply -f -.

The manifest holds a new join token, good for this cluster's name and once, and
the addresses of every hub member as the hub knows them. It is a secret.

Your nodes must be able to pull the agent's image: "make images" writes it as an
archive, for your registry or for your nodes; name it with --image.

With --agent-address the manifest also makes a Service for the agents of other
clusters: on every node's port if PORT is one for that (30000 to 32767), else a
load balancer's with PORT. Lead HOST to it, and let the other clusters through.

The agent's rights in the cluster are a role for each feature, never cluster-admin:
every agent sees the cluster; "datasets" keeps databases' certificates, "placement"
applies templates, "roles" applies templates of Roles and RoleBindings,
"clusterroles" of ClusterRoles and ClusterRoleBindings (not without "roles"),
"gateway" passes people on, as themselves. --without leaves out what you do not use; delete
the ClusterRole and the ClusterRoleBinding tripod-agent-FEATURE of a cluster that
had it.

--direct lets the hub's members pass people on without the tunnel, for a Cluster with
spec.access.mode Direct. Its API server must believe the hub's CA, too: add
ca.crt of a member's DATADIR/pki to what its --client-ca-file names.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			params.Cluster = args[0]
			if err = checkChoices(params); err != nil {
				return err
			}
			if params.Hub, err = door.memberHosts(cmd.Context()); err != nil {
				return err
			}
			token, err := j.token(cmd.Context(), door, params.Cluster)
			if err != nil {
				return err
			}
			params.Token, params.Address = token.String(), j.address
			manifest, err := agent.Render(params)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(manifest)
			return err
		},
	}
	j.flags(c.Flags())
	c.Flags().StringVar(&params.Image, "image", agent.DefaultImage, "image of the agent")
	c.Flags().IntVar(&params.Replicas, "replicas", 2, "replicas of the agent; with 2, one may fail")
	c.Flags().StringSliceVar(&params.Without, "without", nil, "features that the agent gets no rights for: "+strings.Join(agent.Features, ", "))
	c.Flags().BoolVar(&params.Direct, "direct", false, "also let the hub's members pass people on by themselves, for mode Direct")
	c.Flags().StringVar(&params.LogLevel, "log-level", "info", "debug, info, warn or error")
	return c
}

// checkChoices finds what is wrong before the hub is asked for anything: a token that is
// made for nobody would be one more secret.
func checkChoices(params agent.Params) error {
	if params.Replicas < 1 {
		return fmt.Errorf("--replicas is %d: give 2, so that one may fail", params.Replicas)
	}
	return params.ValidateRights()
}

// memberHosts asks the hub for the host of every member, so that an agent knows them
// all even if this person's kubeconfig names one.
func (c *connection) memberHosts(ctx context.Context) ([]string, error) {
	members, err := c.askMembers(ctx)
	if err != nil {
		return nil, err
	}
	var hosts []string
	for _, m := range members {
		hosts = append(hosts, m.GetAddress())
	}
	if len(hosts) == 0 {
		return nil, errors.New("the hub names no member: look at tripodctl hub status")
	}
	return hosts, nil
}
