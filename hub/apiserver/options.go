package apiserver

import (
	"context"
	"fmt"
	"net"
	"time"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle"
	mutatingpolicy "k8s.io/apiserver/pkg/admission/plugin/policy/mutating"
	"k8s.io/apiserver/pkg/server/egressselector"
	"k8s.io/client-go/informers"
	"k8s.io/kubernetes/pkg/controlplane/apiserver/options"
	"k8s.io/kubernetes/pkg/kubeapiserver/authorizer/modes"
	kubeoptions "k8s.io/kubernetes/pkg/kubeapiserver/options"
	"k8s.io/kubernetes/pkg/serviceaccount"
	certapproval "k8s.io/kubernetes/plugin/pkg/admission/certificates/approval"
	certsigning "k8s.io/kubernetes/plugin/pkg/admission/certificates/signing"
	certsubject "k8s.io/kubernetes/plugin/pkg/admission/certificates/subjectrestriction"
)

// serviceAccountIssuer is in every token; tokens of one member are valid at all.
const serviceAccountIssuer = "https://kubernetes.default.svc"

// upstreamAdmission are the upstream plugins that make sense where no pod
// runs. ServiceAccount, LimitRanger, PodSecurity and the rest judge pods;
// ResourceQuota would count templates that run elsewhere.
var upstreamAdmission = sets.New(
	lifecycle.PluginName,
	certapproval.PluginName,
	certsigning.PluginName,
	certsubject.PluginName,
).Union(configurable)

// upstreamOptions translates a Config into the control plane's own options.
func upstreamOptions(ctx context.Context, c Config, listener net.Listener, secrets *lateSecrets) (options.CompletedOptions, error) {
	o := options.NewOptions()
	serve(o, c, listener)
	authenticate(o, c, secrets)
	admit(o, c)

	o.Etcd.StorageConfig.Prefix = c.Store.Prefix
	o.Etcd.StorageConfig.Transport.ServerList = c.Store.Endpoints
	o.Etcd.StorageConfig.Transport.TrustedCAFile = c.Store.CA
	o.Etcd.StorageConfig.Transport.CertFile = c.Store.Certificate
	o.Etcd.StorageConfig.Transport.KeyFile = c.Store.Key
	if c.Store.Dial != nil {
		o.Etcd.StorageConfig.Transport.EgressLookup = func(egressselector.NetworkContext) (utilnet.DialFunc, error) {
			return c.Store.Dial, nil
		}
	}
	// The store compacts by itself on the leader's word; five minutes is
	// upstream's default and what kubectl's watches are made for.
	o.EventTTL = c.EventTTL

	o.Features.EnableProfiling = false
	o.Features.EnableContentionProfiling = false

	if err := keepAudit(o, c); err != nil {
		return options.CompletedOptions{}, err
	}
	completed, err := o.Complete(ctx, nil, nil)
	if err != nil {
		return options.CompletedOptions{}, fmt.Errorf("apiserver: complete the options: %w", err)
	}
	if errs := completed.Validate(); len(errs) != 0 {
		return options.CompletedOptions{}, fmt.Errorf("apiserver: %w", utilerrors.NewAggregate(errs))
	}
	return completed, nil
}

func serve(o *options.Options, c Config, listener net.Listener) {
	o.SecureServing.Listener = listener
	if address, ok := listener.Addr().(*net.TCPAddr); ok {
		o.SecureServing.BindPort = address.Port
	}
	o.SecureServing.ServerCert.CertKey.CertFile = c.Identity.Certificate
	o.SecureServing.ServerCert.CertKey.KeyFile = c.Identity.Key
	o.SecureServing.MinTLSVersion = "VersionTLS12" // clients are anybody's; members and agents speak 1.3
	o.GenericServerRunOptions.ExternalHost = c.Advertise
	o.GenericServerRunOptions.AdvertiseAddress = net.ParseIP(c.Advertise)
	if o.GenericServerRunOptions.AdvertiseAddress == nil {
		// A name: nothing here hands the address to clients, so that a host
		// without a default route may start.
		o.GenericServerRunOptions.AdvertiseAddress = net.IPv4(127, 0, 0, 1)
	}
}

func authenticate(o *options.Options, c Config, secrets *lateSecrets) {
	o.Authentication.ClientCert.ClientCA = c.Identity.CA
	if c.Identity.Authorities != nil {
		o.Authentication.ClientCert.CAContentProvider = clientAuthorities{c.Identity.Authorities}
	}
	o.Authentication.BootstrapToken.Enable = true
	o.Authentication.AuthenticationConfigFile = c.AuthenticationConfig
	o.Authentication.TokenSuccessCacheTTL = tokenCacheSeconds * time.Second
	o.Authentication.ServiceAccounts.Issuers = []string{serviceAccountIssuer}
	o.Authentication.ServiceAccounts.KeyFiles = []string{c.Identity.ServiceAccountKey}
	o.Authentication.ServiceAccounts.OptionalTokenGetter = func(f informers.SharedInformerFactory) serviceaccount.ServiceAccountTokenGetter {
		secrets.lister = f.Core().V1().Secrets().Lister()
		return tokenGetter{secrets: secrets.lister, accounts: f.Core().V1().ServiceAccounts().Lister()}
	}
	o.ServiceAccountSigningKeyFile = c.Identity.ServiceAccountKey
	o.Authorization.Modes = []string{modes.ModeRBAC}
}

func admit(o *options.Options, c Config) {
	admission := o.Admission.GenericAdmission
	admission.DefaultOffPlugins = sets.New(kubeoptions.AllOrderedPlugins...).Difference(upstreamAdmission)
	registerAdmission(admission.Plugins, c.Drivers)
	admission.Decorators = append(admission.Decorators, ownWay)
	// Before the policies and webhooks: they shall see what was stamped.
	ordered := []string{}
	for _, name := range admission.RecommendedPluginOrder {
		if name == mutatingpolicy.PluginName {
			ordered = append(ordered, ownAdmission...)
		}
		ordered = append(ordered, name)
	}
	admission.RecommendedPluginOrder = ordered
}

func keepAudit(o *options.Options, c Config) error {
	policy := c.Audit.PolicyFile
	if policy == "" {
		var err error
		if policy, err = writeDefaultAuditPolicy(c.DataDir); err != nil {
			return err
		}
	}
	o.Audit.PolicyFile = policy
	o.Audit.WebhookOptions.ConfigFile = c.Audit.WebhookConfigFile
	return nil
}
