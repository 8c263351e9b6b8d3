package lab

import (
	"fmt"
	"maps"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"tripod.dev/tripod/test/multikind/center"
)

// Contexts of the lab's kubeconfig, beside one per center through the gateway.
const (
	HubContext   = "hub"
	FleetContext = "fleet"
)

// DirectContext is the context that goes straight to a center's API server.
func DirectContext(center string) string { return "direct-" + center }

// Kubeconfig is the path of the lab's kubeconfig.
func (l *Lab) Kubeconfig() string { return l.path("kubeconfig") }

// RESTConfig returns a client configuration for one context of the lab's kubeconfig.
func (l *Lab) RESTConfig(context string) (*rest.Config, error) {
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		&clientcmd.ClientConfigLoadingRules{ExplicitPath: l.Kubeconfig()},
		&clientcmd.ConfigOverrides{CurrentContext: context},
	).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("read context %s: %w", context, err)
	}
	return config, nil
}

// writeKubeconfig writes the lab's kubeconfig; hub is nil while the lab has none.
func (l *Lab) writeKubeconfig(hub *api.Config) error {
	direct := map[string]*api.Config{}
	for _, plan := range l.plans {
		config, err := plan.Prepare(l.path(plan.Name, "lib"))
		if err != nil {
			return err
		}
		direct[plan.Name] = config
	}
	merged, err := mergeKubeconfigs(l.plans, direct, hub)
	if err != nil {
		return err
	}
	content, err := clientcmd.Write(*merged)
	if err != nil {
		return fmt.Errorf("encode kubeconfig: %w", err)
	}
	return replaceFile(l.Kubeconfig(), content, 0o600)
}

// mergeKubeconfigs makes one kubeconfig of the centers' own and the hub
// administrator's. The hub's contexts start at the first member; any member serves
// them, and clients that want another use `multikind env`'s TRIPOD_HUB.
func mergeKubeconfigs(plans []center.Plan, direct map[string]*api.Config, hub *api.Config) (*api.Config, error) {
	merged := api.NewConfig()
	add := func(name string, from *api.Config, path string) error {
		source := from.Contexts[from.CurrentContext]
		if source == nil || from.Clusters[source.Cluster] == nil || from.AuthInfos[source.AuthInfo] == nil {
			return fmt.Errorf("merge kubeconfig %s: its current context %q is not complete", name, from.CurrentContext)
		}
		target := from.Clusters[source.Cluster].DeepCopy()
		target.Server += path
		merged.Clusters[name] = target
		user := name
		if from == hub {
			user = HubContext
		}
		merged.AuthInfos[user] = from.AuthInfos[source.AuthInfo].DeepCopy()
		merged.Contexts[name] = &api.Context{Cluster: name, AuthInfo: user}
		return nil
	}
	for _, plan := range plans {
		if err := add(DirectContext(plan.Name), direct[plan.Name], ""); err != nil {
			return nil, err
		}
	}
	merged.CurrentContext = DirectContext(plans[0].Name)
	if hub == nil {
		return merged, nil
	}
	paths := map[string]string{HubContext: "", FleetContext: "/fleet"}
	for _, plan := range plans {
		paths[plan.Name] = "/clusters/" + plan.Name
	}
	for name, path := range maps.All(paths) {
		if err := add(name, hub, path); err != nil {
			return nil, err
		}
	}
	merged.CurrentContext = HubContext
	return merged, nil
}
