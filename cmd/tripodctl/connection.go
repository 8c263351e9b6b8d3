package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub/api/endpoint"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// connection finds the hub and opens clients to whichever member answers.
type connection struct {
	kubeconfig string
	context    string
	hub        string
}

func (c *connection) flags(f *pflag.FlagSet) {
	f.StringVar(&c.kubeconfig, "kubeconfig", "", "path of the kubeconfig (default $KUBECONFIG, then ~/.kube/config)")
	f.StringVar(&c.context, "context", "", `kubeconfig context (default "hub" where there is one)`)
	f.StringVar(&c.hub, "hub", "", "hub members, HOST,HOST,HOST (default $TRIPOD_HUB, then those that the kubeconfig knows)")
}

// load reads the kubeconfig and says which of its contexts is used; empty is its
// current one.
func (c *connection) load() (*clientcmdapi.Config, string, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = c.kubeconfig
	rules.WarnIfAllMissing = false // an error says it below
	raw, err := rules.Load()
	if err != nil {
		return nil, "", fmt.Errorf("read the kubeconfig: %w", err)
	}
	name := c.context
	if _, ok := raw.Contexts["hub"]; name == "" && ok {
		name = "hub"
	}
	if len(raw.Contexts) == 0 {
		return nil, "", fmt.Errorf("find the hub: no kubeconfig in %s: give --kubeconfig FILE or set KUBECONFIG, for instance to the admin.kubeconfig in a hub member's data folder",
			strings.Join(rules.GetLoadingPrecedence(), ", "))
	}
	if _, ok := raw.Contexts[name]; name != "" && !ok {
		return nil, "", fmt.Errorf("find the hub: the kubeconfig has no context %q: it has %s", name, strings.Join(slices.Sorted(maps.Keys(raw.Contexts)), ", "))
	}
	return raw, name, nil
}

// knownMembers are the members that the kubeconfig keeps.
func (c *connection) knownMembers() []fleetMember {
	raw, name, err := c.load()
	if err != nil {
		return nil
	}
	used := raw.Contexts[cmp.Or(name, raw.CurrentContext)]
	if used == nil {
		return nil
	}
	return extended(raw.Clusters[used.Cluster])
}

// restConfig returns a configuration whose connections go to the first member
// that answers.
func (c *connection) restConfig() (*rest.Config, error) {
	raw, name, err := c.load()
	if err != nil {
		return nil, err
	}
	config, err := clientcmd.NewNonInteractiveClientConfig(*raw, name, &clientcmd.ConfigOverrides{}, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("find the hub: %w; give --kubeconfig FILE, for instance the admin.kubeconfig in a hub member's data folder", err)
	}
	// A context of the gateway has a path; the hub itself is at the root.
	if server, err := url.Parse(config.Host); err == nil && server.Scheme != "" {
		config.Host = server.Scheme + "://" + server.Host
	}
	config.Timeout = 15 * time.Second
	config.QPS, config.Burst = 100, 200
	if members := c.members(config); len(members) > 0 {
		config.Dial = endpoint.Dialer(members)
		config.ServerName = endpoint.ServerName
	}
	return config, nil
}

// members returns HOST:6443 of every member that is known.
func (c *connection) members(config *rest.Config) []string {
	if members := endpoint.Parse(cmp.Or(c.hub, os.Getenv("TRIPOD_HUB")), endpoint.APIPort); len(members) > 0 {
		return members
	}
	if known := c.knownMembers(); len(known) > 0 {
		return addresses(known)
	}
	host, _, _ := strings.Cut(strings.TrimPrefix(config.Host, "https://"), "/")
	return endpoint.Parse(host, endpoint.APIPort)
}

// client returns a client for Tripod's kinds and the core group.
func (c *connection) client() (client.WithWatch, error) {
	config, err := c.restConfig()
	if err != nil {
		return nil, err
	}
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{v1alpha1.AddToScheme, corev1.AddToScheme} {
		if err := add(s); err != nil {
			return nil, fmt.Errorf("register the kinds: %w", err)
		}
	}
	return client.NewWithWatch(config, client.Options{Scheme: s})
}

// firstMember returns the first of members that accepts a connection.
func firstMember(ctx context.Context, members []string) (string, error) {
	conn, err := endpoint.Dialer(members)(ctx, "tcp", "")
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	return conn.RemoteAddr().String(), nil
}
