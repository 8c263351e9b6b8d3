package reporter

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	podresource "k8s.io/component-helpers/resource"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
	"tripod.dev/tripod/syncer"
	"tripod.dev/tripod/syncer/view"
)

var (
	nodes   = schema.GroupResource{Resource: "nodes"}
	pods    = schema.GroupResource{Resource: "pods"}
	classes = schema.GroupResource{Group: "storage.k8s.io", Resource: "storageclasses"}
)

// factsheet sums up the cluster as its objects come and go.
type factsheet struct {
	mu        sync.Mutex
	version   string
	resources []*agentv1.SyncedResource
	nodes     map[syncer.Key]node
	pods      map[syncer.Key]amount
	wants     map[syncer.Key]wants
	classes   map[syncer.Key]bool
	published *agentv1.ClusterFacts

	nodesListed, podsListed, classesListed bool
}

type node struct {
	ready       bool
	allocatable amount
}

// amount is in milli-CPU and bytes.
type amount struct {
	cpu, memory int64
}

func amountOf(list corev1.ResourceList) amount {
	return amount{cpu: list.Cpu().MilliValue(), memory: list.Memory().Value()}
}

func newFactsheet() *factsheet {
	return &factsheet{nodes: map[syncer.Key]node{}, pods: map[syncer.Key]amount{}, wants: map[syncer.Key]wants{}, classes: map[syncer.Key]bool{}}
}

// served notes the API server's version and the synced resources.
func (f *factsheet) served(version string, resources map[schema.GroupVersionResource]syncer.Resource) {
	encoded := make([]*agentv1.SyncedResource, 0, len(resources))
	for _, r := range resources {
		encoded = append(encoded, view.EncodeResource(r))
	}
	slices.SortFunc(encoded, func(a, b *agentv1.SyncedResource) int {
		return strings.Compare(a.Group+"/"+a.Resource, b.Group+"/"+b.Resource)
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	f.version, f.resources = version, encoded
}

// note counts a node or a pod; other objects are ignored. The object is whole:
// it was not cut yet.
func (f *factsheet) note(r syncer.Resource, key syncer.Key, object *unstructured.Unstructured) {
	switch r.GroupVersionResource.GroupResource() {
	case nodes:
		f.noteNode(key, object)
	case pods:
		f.notePod(key, object)
	case classes:
		f.mu.Lock()
		defer f.mu.Unlock()
		f.classes[key] = true
	}
}

func (f *factsheet) noteNode(key syncer.Key, object *unstructured.Unstructured) {
	var n corev1.Node
	if runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &n) != nil {
		return
	}
	ready := slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	f.nodes[key] = node{ready: ready, allocatable: amountOf(n.Status.Allocatable)}
}

// notePod counts what the scheduler counts: the requests of pods that have a
// node and have not ended.
func (f *factsheet) notePod(key syncer.Key, object *unstructured.Unstructured) {
	var p corev1.Pod
	if runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &p) != nil {
		return
	}
	ended := p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	requested := amountOf(podresource.PodRequests(&p, podresource.PodResourcesOptions{}))
	f.mu.Lock()
	defer f.mu.Unlock()
	if w := wantsOf(&p); !ended && !w.nothing() {
		f.wants[key] = w
	} else {
		delete(f.wants, key)
	}
	if ended || p.Spec.NodeName == "" {
		delete(f.pods, key)
		return
	}
	f.pods[key] = requested
}

func (f *factsheet) forget(r syncer.Resource, key syncer.Key) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch r.GroupVersionResource.GroupResource() {
	case nodes:
		delete(f.nodes, key)
	case pods:
		delete(f.pods, key)
		delete(f.wants, key)
	case classes:
		delete(f.classes, key)
	}
}

// listed notes that a list was taken in whole and forgets what is not in it.
func (f *factsheet) listed(r syncer.Resource, objects []syncer.Object) {
	name := r.GroupVersionResource.GroupResource()
	if name != nodes && name != pods && name != classes {
		return
	}
	keep := make(map[syncer.Key]bool, len(objects))
	for _, object := range objects {
		keep[object.Key] = true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if name == classes {
		f.classesListed = true
		maps.DeleteFunc(f.classes, func(key syncer.Key, _ bool) bool { return !keep[key] })
		return
	}
	if name == nodes {
		f.nodesListed = true
		maps.DeleteFunc(f.nodes, func(key syncer.Key, _ node) bool { return !keep[key] })
		return
	}
	f.podsListed = true
	maps.DeleteFunc(f.pods, func(key syncer.Key, _ amount) bool { return !keep[key] })
	maps.DeleteFunc(f.wants, func(key syncer.Key, _ wants) bool { return !keep[key] })
}

// publish makes the present facts current and reports whether they are new.
// There are none before the version is known and what is counted has been listed:
// a count that is still growing would look like a cluster without capacity.
func (f *factsheet) publish() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.version == "" || !f.nodesListed || !f.podsListed || !f.classesListed && f.servesClassesLocked() {
		return false
	}
	facts := &agentv1.ClusterFacts{Version: f.version, Nodes: int32(len(f.nodes)), Resources: f.resources}
	var allocatable, requested amount
	for _, n := range f.nodes {
		if n.ready {
			facts.ReadyNodes++
		}
		allocatable.cpu += n.allocatable.cpu
		allocatable.memory += n.allocatable.memory
	}
	for _, p := range f.pods {
		requested.cpu += p.cpu
		requested.memory += p.memory
	}
	facts.AllocatableCpu, facts.AllocatableMemory = allocatable.quantities()
	facts.RequestedCpu, facts.RequestedMemory = requested.quantities()
	f.wantedLocked(facts)
	if proto.Equal(facts, f.published) {
		return false
	}
	f.published = facts
	return true
}

func (a amount) quantities() (cpu, memory string) {
	return resource.NewMilliQuantity(a.cpu, resource.DecimalSI).String(), resource.NewQuantity(a.memory, resource.BinarySI).String()
}

// current returns the published facts, which are never modified; nil before
// there are any.
func (f *factsheet) current() *agentv1.ClusterFacts {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.published
}
