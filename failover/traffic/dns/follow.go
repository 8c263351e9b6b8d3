package dns

import (
	"context"
	"errors"

	"github.com/miekg/dns"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"

	"tripod.dev/tripod/failover/traffic"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// follow keeps the table as the global services say, until ctx ends. What the
// member cannot see for a while stays as it was seen last.
func (s *Server) follow(ctx context.Context) {
	informer := dynamicinformer.NewFilteredDynamicInformer(s.client,
		v1alpha1.GroupVersion.WithResource("globalservices"), "", 0, cache.Indexers{}, nil).Informer()
	registration, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { s.take(ctx, obj) },
		UpdateFunc: func(_, obj any) { s.take(ctx, obj) },
		DeleteFunc: func(obj any) {
			if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj); err == nil {
				_ = s.table.Withdraw(ctx, key)
				s.metrics.routes(s.table)
			}
		},
	})
	if err != nil {
		s.config.Log.Error("could not watch global services", "error", err)
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if cache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
			s.table.Ready()
		}
	}()
	informer.RunWithContext(ctx)
	<-done
}

func (s *Server) take(ctx context.Context, obj any) {
	u, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return
	}
	g := &v1alpha1.GlobalService{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, g); err != nil {
		s.config.Log.Warn("could not read a global service", "service", u.GetNamespace()+"/"+u.GetName(), "error", err)
		return
	}
	route := traffic.RouteOf(g)
	err := s.table.Switch(ctx, route)
	s.metrics.switched(err)
	s.metrics.routes(s.table)
	switch {
	case errors.Is(err, traffic.ErrOlderEpoch):
		s.config.Log.Warn("refused an older route", "service", route.Service, "epoch", route.Epoch, "error", err)
	case err != nil:
		s.config.Log.Warn("could not route a global service", "service", route.Service, "error", err)
	case s.zoneOf(dns.CanonicalName(route.Host)) == "":
		s.config.Log.Warn("a global service's host is in none of the zones served", "service", route.Service, "host", route.Host)
	}
}
