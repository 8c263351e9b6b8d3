package apiserver

import (
	"context"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/admission"
	mutatingpolicy "k8s.io/apiserver/pkg/admission/plugin/policy/mutating"
	validatingpolicy "k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	mutatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/mutating"
	validatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/validating"
)

// configurable are the plugins that judge by what people have installed.
var configurable = sets.New(mutatingpolicy.PluginName, mutatingwebhook.PluginName, validatingpolicy.PluginName, validatingwebhook.PluginName)

// ownWay has those plugins pass over what the hub itself writes. A webhook for
// everything whose server was in the center that is lost, or a policy that nobody thought
// through, would else hold up every failover, in the one moment that the hub is for.
var ownWay = admission.DecoratorFunc(func(plugin admission.Interface, name string) admission.Interface {
	if !configurable.Has(name) {
		return plugin
	}
	return strangersOnly{plugin}
})

// strangersOnly judges what anybody but the hub itself asks.
type strangersOnly struct{ admission.Interface }

var (
	_ admission.MutationInterface   = strangersOnly{}
	_ admission.ValidationInterface = strangersOnly{}
)

// Admit implements admission.MutationInterface.
func (s strangersOnly) Admit(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	if plugin, ok := s.Interface.(admission.MutationInterface); ok && !isHub(a.GetUserInfo()) {
		return plugin.Admit(ctx, a, o)
	}
	return nil
}

// Validate implements admission.ValidationInterface.
func (s strangersOnly) Validate(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	if plugin, ok := s.Interface.(admission.ValidationInterface); ok && !isHub(a.GetUserInfo()) {
		return plugin.Validate(ctx, a, o)
	}
	return nil
}
