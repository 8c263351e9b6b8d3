package apiserver

import (
	"fmt"
	"net/http"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apimachinery/pkg/runtime"
	genericfilters "k8s.io/apiserver/pkg/endpoints/filters"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/apiserver/pkg/util/notfoundhandler"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/kubernetes"
	aggregator "k8s.io/kube-aggregator/pkg/apiserver"
	aggregatorscheme "k8s.io/kube-aggregator/pkg/apiserver/scheme"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	controlplaneapiserver "k8s.io/kubernetes/pkg/controlplane/apiserver"
	"k8s.io/kubernetes/pkg/controlplane/apiserver/options"
	generatedopenapi "k8s.io/kubernetes/pkg/generated/openapi"
	flowcontrolrest "k8s.io/kubernetes/pkg/registry/flowcontrol/rest"
	rbacrest "k8s.io/kubernetes/pkg/registry/rbac/rest"
)

// chain holds the configurations of the three servers that delegate to each
// other: the aggregator (discovery and OpenAPI of all), the built-in kinds, and
// the custom resources.
type chain struct {
	aggregator   *aggregator.Config
	controlPlane *controlplaneapiserver.Config
	extensions   *apiextensions.Config
	people       *people
	allowed      *allowed
	statuses     *Statuses
	feeds        *Feeds
}

// newChain opens no connection to the store.
func newChain(o options.CompletedOptions, config Config, secrets *lateSecrets) (*chain, error) {
	hooks, box := config.Hooks, config.Encryption
	generic, informers, factory, err := controlplaneapiserver.BuildGenericConfig(
		o,
		[]*runtime.Scheme{legacyscheme.Scheme, apiextensions.Scheme, aggregatorscheme.Scheme},
		servedResources(),
		generatedopenapi.GetOpenAPIDefinitions,
	)
	if err != nil {
		return nil, fmt.Errorf("apiserver: build the generic configuration: %w", err)
	}
	// These two end the process when they fail; startup runs them patiently.
	generic.DisabledPostStartHooks.Insert(rbacrest.PostStartHookName, flowcontrolrest.PostStartHookName)
	// It tells when tokens in Secrets were last used; the hub makes none.
	generic.DisabledPostStartHooks.Insert("start-legacy-token-tracking-controller")
	generic.EffectiveVersion = stampVersion(generic.EffectiveVersion)
	install(generic, hooks)
	if config.Audit.Log != nil {
		generic.AuditBackend = withLog(config.Audit.Log, generic.AuditBackend)
	}
	who := &people{next: generic.Authentication.Authenticator, secrets: secrets.get}
	if generic.Authentication.RequestHeaderConfig == nil && generic.SecureServing.ClientCA != nil {
		who.next = newVouched(who.next, generic.SecureServing.ClientCA) // a certificate is who shows it, never who it says that asks
	}
	generic.Authentication.Authenticator = roomyAuthenticator{who}
	rights := newAllowed(generic.Authorization.Authorizer)
	if err := rights.follow(informers); err != nil {
		return nil, err
	}
	generic.Authorization.Authorizer = rights
	if box != nil {
		// As upstream does with a file of its options, but what is in force is known:
		// upstream looks once a minute whether the file has changed.
		generic.ResourceTransformers = box.Transformers()
		generic.RESTOptionsGetter = o.Etcd.CreateRESTOptionsGetter(factory, box.Transformers())
		generic.HealthzChecks, generic.ReadyzChecks = append(generic.HealthzChecks, box.Transformers()), append(generic.ReadyzChecks, box.Transformers())
	}

	resolver := webhook.NewDefaultServiceResolver()
	controlPlane, initializers, err := controlplaneapiserver.CreateConfig(o, generic, informers, factory, resolver, nil)
	if err != nil {
		return nil, fmt.Errorf("apiserver: configure the control plane: %w", err)
	}
	authResolver := webhook.NewDefaultAuthenticationInfoResolverWrapper(
		controlPlane.ProxyTransport, generic.EgressSelector, generic.LoopbackClientConfig, generic.TracerProvider)
	// With more than one master, upstream establishes a CRD five seconds late,
	// so that all masters know it first. Here that would delay every start; a
	// member that lags by a watch event answers 404 meanwhile.
	const masters = 1
	extensions, err := controlplaneapiserver.CreateAPIExtensionsConfig(
		*generic, controlPlane.VersionedInformers, initializers, o, masters, resolver, authResolver)
	if err != nil {
		return nil, fmt.Errorf("apiserver: configure custom resources: %w", err)
	}
	aggregator, err := controlplaneapiserver.CreateAggregatorConfig(
		*generic, o, controlPlane.VersionedInformers, resolver, controlPlane.ProxyTransport, nil, initializers)
	if err != nil {
		return nil, fmt.Errorf("apiserver: configure the aggregator: %w", err)
	}
	aggregator.ExtraConfig.DisableRemoteAvailableConditionController = true
	lead(aggregator.GenericConfig, hooks)
	own := extensions.ExtraConfig.CRDRESTOptionsGetter
	extensions.ExtraConfig.CRDRESTOptionsGetter = seldomWatched{own}
	statuses := newStatuses(own, &diary{policy: generic.AuditPolicyRuleEvaluator, log: generic.AuditBackend})
	return &chain{aggregator: aggregator, controlPlane: controlPlane, extensions: extensions, people: who, allowed: rights, statuses: statuses, feeds: newFeeds(own)}, nil
}

// install puts the hooks into what the three servers share.
func install(generic *genericapiserver.Config, hooks Hooks) {
	if hooks.RequestInfo != nil {
		generic.RequestInfoResolver = hooks.RequestInfo(genericapiserver.NewRequestInfoResolver(generic))
	}
	if hooks.LongRunning != nil {
		generic.LongRunningFunc = hooks.LongRunning(generic.LongRunningFunc)
	}
}

// lead puts the hooks' handlers into the front's chain, the only one that is run.
func lead(front *genericapiserver.RecommendedConfig, hooks Hooks) {
	if hooks.Handler == nil {
		return
	}
	build := front.BuildHandlerChainFunc
	front.BuildHandlerChainFunc = func(api http.Handler, c *genericapiserver.Config) http.Handler {
		served := hooks.Handler(api)
		handler := rememberHow(build(served, untraced(c)), c)
		if hooks.Passes != nil {
			handler = either(hooks.Passes, passageChain(served, c), handler)
		}
		handler = roomy(handler)
		if hooks.Front != nil {
			handler = hooks.Front(handler)
		}
		return handler
	}
}

// either has the requests for which it holds served by yes, all others by no.
func either(holds func(*http.Request) bool, yes, no http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if holds(r) {
			yes.ServeHTTP(w, r)
			return
		}
		no.ServeHTTP(w, r)
	})
}

// create makes the storages, which begin to read from the store.
func (c *chain) create(hooks Hooks, own *startup) (*aggregator.APIAggregator, error) {
	aggregatorConfig, extensionsConfig, controlPlaneConfig := c.aggregator.Complete(), c.extensions.Complete(), c.controlPlane.Complete()

	notFound := notfoundhandler.New(c.controlPlane.Generic.Serializer, genericfilters.NoMuxAndDiscoveryIncompleteKey)
	extensions, err := extensionsConfig.New(genericapiserver.NewEmptyDelegateWithCustomHandler(notFound))
	if err != nil {
		return nil, fmt.Errorf("apiserver: create the server of custom resources: %w", err)
	}
	native, err := controlPlaneConfig.New("tripod-hub", extensions.GenericAPIServer)
	if err != nil {
		return nil, fmt.Errorf("apiserver: create the server of built-in kinds: %w", err)
	}
	client, err := kubernetes.NewForConfig(c.controlPlane.Generic.LoopbackClientConfig)
	if err != nil {
		return nil, fmt.Errorf("apiserver: make the loopback client: %w", err)
	}
	providers, err := storageProviders(&controlPlaneConfig, client.Discovery())
	if err != nil {
		return nil, fmt.Errorf("apiserver: create storages: %w", err)
	}
	if err := native.InstallAPIs(providers...); err != nil {
		return nil, fmt.Errorf("apiserver: install the built-in kinds: %w", err)
	}
	crdsServed := c.extensions.GenericConfig.MergedResourceConfig.ResourceEnabled(
		apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions"))
	front, err := controlplaneapiserver.CreateAggregatorServer(aggregatorConfig, native.GenericAPIServer,
		extensions.Informers.Apiextensions().V1().CustomResourceDefinitions(), crdsServed, groupPriorities())
	if err != nil {
		return nil, fmt.Errorf("apiserver: create the aggregator: %w", err)
	}
	flowControl := flowcontrolrest.RESTStorageProvider{InformerFactory: controlPlaneConfig.Generic.SharedInformerFactory}
	if _, own.flowControl, err = flowControl.PostStartHook(); err != nil {
		return nil, fmt.Errorf("apiserver: prepare flow control: %w", err)
	}
	own.crds = extensions.Informers.Apiextensions().V1().CustomResourceDefinitions().Lister()
	if err := own.addTo(front.GenericAPIServer); err != nil {
		return nil, err
	}
	for name, check := range hooks.Ready {
		if err := front.GenericAPIServer.AddReadyzChecks(healthz.NamedCheck(name, check)); err != nil {
			return nil, fmt.Errorf("apiserver: add readiness check %q: %w", name, err)
		}
	}
	return front, nil
}
