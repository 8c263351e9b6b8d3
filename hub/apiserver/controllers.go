package apiserver

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/controller-manager/pkg/informerfactory"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/bootstrap"
	"k8s.io/kubernetes/pkg/controller/certificates/cleaner"
	"k8s.io/kubernetes/pkg/controller/clusterroleaggregation"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	"k8s.io/kubernetes/pkg/controller/namespace"
	"k8s.io/kubernetes/pkg/controller/serviceaccount"
)

const (
	controllerWorkers = 2
	// discoveryPeriod is how soon the garbage collector minds a new kind.
	discoveryPeriod = 10 * time.Second
	// collectorSyncTimeout is upstream's: then it collects what it knows.
	collectorSyncTimeout = 30 * time.Second
)

// LeaderControllers are the upstream controllers without which a Kubernetes API
// does not behave: they finish deletions, collect what has lost its owner, and
// keep roles, service accounts, requests and tokens tidy. The leader starts
// them with its term and ends their ctx with it; each Run begins afresh.
func (s *Server) LeaderControllers() []Runnable {
	controllers := []struct {
		name string
		run  func(context.Context, *controllerClients) error
	}{
		{"namespace", runNamespaces},
		{"garbage-collector", runGarbageCollector},
		{"clusterrole-aggregation", runRoleAggregation},
		{"service-account", runServiceAccounts},
		{"csr-cleaner", runRequestCleaner},
		{"token-cleaner", runTokenCleaner},
	}
	var runnables []Runnable
	for _, c := range controllers {
		runnables = append(runnables, Runnable{Name: c.name, Run: func(ctx context.Context) error {
			clients, err := newControllerClients(s.Loopback(), s.Feeds(), c.name)
			if err == nil {
				err = c.run(klog.NewContext(ctx, klog.Background().WithName(c.name)), clients)
			}
			if err != nil && ctx.Err() == nil {
				return fmt.Errorf("apiserver: controller %s: %w", c.name, err)
			}
			return nil
		}})
	}
	return runnables
}

// controllerClients are one controller's, for one term.
type controllerClients struct {
	kube     kubernetes.Interface
	metadata metadata.Interface
	feeds    *Feeds
	informers.SharedInformerFactory
}

func newControllerClients(config *rest.Config, feeds *Feeds, name string) (*controllerClients, error) {
	config = rest.AddUserAgent(config, name)
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	meta, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a metadata client: %w", err)
	}
	return &controllerClients{kube: kube, metadata: meta, feeds: feeds, SharedInformerFactory: informers.NewSharedInformerFactory(kube, 0)}, nil
}

// with runs a controller whose informers have been asked for, and returns when
// informers and controller have both ended.
func (c *controllerClients) with(ctx context.Context, run func()) {
	c.StartWithContext(ctx)
	defer c.Shutdown() // waits for the informers, which ctx ends
	run()
}

func runNamespaces(ctx context.Context, c *controllerClients) error {
	controller := namespace.NewNamespaceController(ctx, c.kube, c.metadata,
		c.kube.Discovery().ServerPreferredNamespacedResources, c.Core().V1().Namespaces(), 5*time.Minute, corev1.FinalizerKubernetes)
	c.with(ctx, func() { controller.Run(ctx, controllerWorkers) })
	return nil
}

func runRoleAggregation(ctx context.Context, c *controllerClients) error {
	controller := clusterroleaggregation.NewClusterRoleAggregation(c.Rbac().V1().ClusterRoles(), c.kube.RbacV1())
	c.with(ctx, func() { controller.Run(ctx, controllerWorkers) })
	return nil
}

func runServiceAccounts(ctx context.Context, c *controllerClients) error {
	controller, err := serviceaccount.NewServiceAccountsController(klog.FromContext(ctx), c.Core().V1().ServiceAccounts(),
		c.Core().V1().Namespaces(), c.kube, serviceaccount.DefaultServiceAccountsControllerOptions())
	if err != nil {
		return err
	}
	c.with(ctx, func() { controller.Run(ctx, 1) })
	return nil
}

func runRequestCleaner(ctx context.Context, c *controllerClients) error {
	controller := cleaner.NewCSRCleanerController(c.kube.CertificatesV1().CertificateSigningRequests(), c.Certificates().V1().CertificateSigningRequests())
	c.with(ctx, func() { controller.Run(ctx, 1) })
	return nil
}

func runTokenCleaner(ctx context.Context, c *controllerClients) error {
	controller, err := bootstrap.NewTokenCleaner(c.kube, c.Core().V1().Secrets(), bootstrap.DefaultTokenCleanerOptions())
	if err != nil {
		return err
	}
	c.with(ctx, func() { controller.Run(ctx) })
	return nil
}

func runGarbageCollector(ctx context.Context, c *controllerClients) error {
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(c.kube.Discovery()))
	objects := metadatainformer.NewSharedInformerFactory(c.metadata, 0)
	own := &ownMetadata{InformerFactory: informerfactory.NewInformerFactory(c, objects), feeds: c.feeds, informers: map[schema.GroupVersionResource]*ownInformer{}}
	started := make(chan struct{})
	collector, err := garbagecollector.NewGarbageCollector(ctx, c.kube, c.metadata, mapper,
		garbagecollector.DefaultIgnoredResources(), own, started)
	if err != nil {
		return err
	}
	c.with(ctx, func() {
		close(started)
		var wg sync.WaitGroup
		wg.Go(func() { collector.Sync(ctx, discovery.ServerResourcesInterface(c.kube.Discovery()), discoveryPeriod) })
		wg.Go(func() { collector.Run(ctx, controllerWorkers, collectorSyncTimeout) })
		wg.Wait()
		objects.Shutdown()
		own.running.Wait()
	})
	return nil
}
