package controller

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// memory is a hub's API for tests with thousands of objects: compare-and-swap by
// resource version, a store that is one map, and lists that do not copy.
type memory struct {
	client.Client               // nil: what is not here is not used
	takes         time.Duration // each read and write; many go on at once
	mu            sync.Mutex
	revision      int64
	objects       map[reflect.Type]map[client.ObjectKey]client.Object
	ordered       map[reflect.Type][]client.ObjectKey
	writes        map[string]int // by kind
}

func newMemory() *memory {
	return &memory{objects: map[reflect.Type]map[client.ObjectKey]client.Object{}, ordered: map[reflect.Type][]client.ObjectKey{}, writes: map[string]int{}}
}

func (m *memory) Get(ctx context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	if err := m.work(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	found := m.objects[reflect.TypeOf(into)][key]
	if found == nil {
		return apierrors.NewNotFound(schema.GroupResource{Resource: reflect.TypeOf(into).String()}, key.String())
	}
	reflect.ValueOf(into).Elem().Set(reflect.ValueOf(found.DeepCopyObject()).Elem())
	return nil
}

func (m *memory) Create(ctx context.Context, obj client.Object, _ ...client.CreateOption) error {
	if err := m.work(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	kind, key := reflect.TypeOf(obj), client.ObjectKeyFromObject(obj)
	if m.objects[kind][key] != nil {
		return apierrors.NewAlreadyExists(schema.GroupResource{Resource: kind.String()}, key.String())
	}
	if m.objects[kind] == nil {
		m.objects[kind] = map[client.ObjectKey]client.Object{}
	}
	obj.SetCreationTimestamp(metav1.NewTime(time.Now()))
	m.ordered[kind] = append(m.ordered[kind], key)
	m.putLocked(obj)
	return nil
}

func (m *memory) work(ctx context.Context) error {
	if m.takes == 0 {
		return nil
	}
	select {
	case <-time.After(m.takes):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *memory) putLocked(obj client.Object) {
	m.revision++
	m.writes[reflect.TypeOf(obj).Elem().Name()]++
	obj.SetResourceVersion(fmt.Sprint(m.revision))
	m.objects[reflect.TypeOf(obj)][client.ObjectKeyFromObject(obj)] = obj.DeepCopyObject().(client.Object)
}

func (m *memory) Update(ctx context.Context, obj client.Object, _ ...client.UpdateOption) error {
	if err := m.work(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	kind, key := reflect.TypeOf(obj), client.ObjectKeyFromObject(obj)
	old := m.objects[kind][key]
	switch {
	case old == nil:
		return apierrors.NewNotFound(schema.GroupResource{Resource: kind.String()}, key.String())
	case old.GetResourceVersion() != obj.GetResourceVersion():
		return apierrors.NewConflict(schema.GroupResource{Resource: kind.String()}, key.String(), fmt.Errorf("is at %s", old.GetResourceVersion()))
	}
	m.putLocked(obj)
	return nil
}

func (m *memory) Status() client.SubResourceWriter { return memoryStatus{memory: m} }

type memoryStatus struct {
	client.SubResourceWriter
	memory *memory
}

func (s memoryStatus) Update(ctx context.Context, obj client.Object, _ ...client.SubResourceUpdateOption) error {
	return s.memory.Update(ctx, obj)
}

func (m *memory) List(_ context.Context, into client.ObjectList, _ ...client.ListOption) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch l := into.(type) {
	case *v1alpha1.ClusterList:
		l.Items = itemsLocked[v1alpha1.Cluster](m)
	case *v1alpha1.ApplicationList:
		l.Items = itemsLocked[v1alpha1.Application](m)
	case *v1alpha1.DatasetList:
		l.Items = itemsLocked[v1alpha1.Dataset](m)
	case *v1alpha1.PlacementList:
		l.Items = itemsLocked[v1alpha1.Placement](m)
	case *v1alpha1.GlobalServiceList:
		l.Items = itemsLocked[v1alpha1.GlobalService](m)
	case *v1alpha1.RecoveryRunList:
		l.Items = itemsLocked[v1alpha1.RecoveryRun](m)
	case *v1alpha1.RecoveryPlanList:
		l.Items = itemsLocked[v1alpha1.RecoveryPlan](m)
	case *v1alpha1.ApprovalList:
		l.Items = itemsLocked[v1alpha1.Approval](m)
	default:
		return fmt.Errorf("memory lists no %T", into)
	}
	return nil
}

func itemsLocked[T any](m *memory) []T {
	kind := reflect.TypeFor[*T]()
	out := make([]T, 0, len(m.ordered[kind]))
	for _, key := range m.ordered[kind] {
		out = append(out, *any(m.objects[kind][key]).(*T))
	}
	return out
}
