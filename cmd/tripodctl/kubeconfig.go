package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"tripod.dev/tripod/hub/api/endpoint"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

func newKubeconfigCommand(door *connection) *cobra.Command {
	var name string
	c := &cobra.Command{
		Use:   "kubeconfig",
		Short: "Print a kubeconfig with the contexts hub, fleet and every cluster",
		Long: `Print a kubeconfig with the contexts hub, fleet and every cluster, all through
the gateway of the member that answered, with the credentials in use now.

kubectl knows one server. Give --server a DNS name that has the addresses of all
members, and kubectl passes over one that does not answer.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := door.restConfig()
			if err != nil {
				return err
			}
			api, err := door.client()
			if err != nil {
				return err
			}
			var clusters v1alpha1.ClusterList
			if err := api.List(cmd.Context(), &clusters); err != nil {
				return fmt.Errorf("list clusters: %w", err)
			}
			routes := map[string]string{"hub": "", "fleet": "/fleet"}
			for _, cl := range clusters.Items {
				routes[cl.Name] = "/clusters/" + cl.Name
			}
			server, err := firstMember(cmd.Context(), door.members(config))
			if err != nil {
				return err
			}
			if named := endpoint.Parse(name, endpoint.APIPort); len(named) > 0 {
				server = named[0]
			}
			ca, err := door.trusted(cmd.Context(), config)
			if err != nil {
				return err
			}
			out := clientcmdapi.NewConfig()
			out.CurrentContext = "hub"
			out.AuthInfos["me"] = &clientcmdapi.AuthInfo{
				ClientCertificateData: config.CertData, ClientCertificate: config.CertFile,
				ClientKeyData: config.KeyData, ClientKey: config.KeyFile,
				Token: config.BearerToken, TokenFile: config.BearerTokenFile,
			}
			for name, path := range routes {
				out.Clusters[name] = &clientcmdapi.Cluster{
					Server:                   "https://" + strings.TrimSuffix(server, "/") + path,
					TLSServerName:            endpoint.ServerName, // in every member's certificate
					CertificateAuthorityData: ca,
				}
				out.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: "me"}
			}
			return writeKubeconfig(cmd.OutOrStdout(), out)
		},
	}
	c.Flags().StringVar(&name, "server", "", "HOST[:PORT] of the hub in the kubeconfig (default the member that answered)")
	return c
}

func writeKubeconfig(w io.Writer, config *clientcmdapi.Config) error {
	text, err := clientcmd.Write(*config)
	if err != nil {
		return fmt.Errorf("encode the kubeconfig: %w", err)
	}
	_, err = w.Write(text)
	return err
}
