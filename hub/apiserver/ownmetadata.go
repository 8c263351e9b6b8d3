package apiserver

import (
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/controller-manager/pkg/informerfactory"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// ownMetadata feeds the garbage collector's informers of Tripod's kinds from below the API
// server. It needs to know of each object who owns it; through the API each write of the
// engine would be decoded as a whole for it.
type ownMetadata struct {
	informerfactory.InformerFactory
	feeds *Feeds

	mu        sync.Mutex
	informers map[schema.GroupVersionResource]*ownInformer
	running   sync.WaitGroup
}

// ownInformer implements informers.GenericInformer.
type ownInformer struct {
	toolscache.SharedIndexInformer
	resource schema.GroupResource
	started  bool
}

// Informer implements informers.GenericInformer.
func (i *ownInformer) Informer() toolscache.SharedIndexInformer { return i.SharedIndexInformer }

// Lister implements informers.GenericInformer.
func (i *ownInformer) Lister() toolscache.GenericLister {
	return toolscache.NewGenericLister(i.GetIndexer(), i.resource)
}

// ForResource implements informerfactory.InformerFactory.
func (o *ownMetadata) ForResource(resource schema.GroupVersionResource) (informers.GenericInformer, error) {
	if resource.GroupVersion() != v1alpha1.GroupVersion {
		return o.InformerFactory.ForResource(resource)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if known := o.informers[resource]; known != nil {
		return known, nil
	}
	source, err := o.feeds.Metadata(resource.GroupResource())
	if err != nil {
		return nil, err
	}
	informer := &ownInformer{resource: resource.GroupResource(), SharedIndexInformer: toolscache.NewSharedIndexInformer(source, &metav1.PartialObjectMetadata{}, 0,
		toolscache.Indexers{toolscache.NamespaceIndex: toolscache.MetaNamespaceIndexFunc})}
	o.informers[resource] = informer
	return informer, nil
}

// Start implements informerfactory.InformerFactory.
func (o *ownMetadata) Start(stop <-chan struct{}) {
	o.InformerFactory.Start(stop)
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, informer := range o.informers {
		if informer.started {
			continue
		}
		informer.started = true
		o.running.Go(func() { informer.Run(stop) })
	}
}
