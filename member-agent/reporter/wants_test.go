package reporter

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
	"tripod.dev/tripod/syncer"
)

func TestWhatPodsWaitForInVainIsTold(t *testing.T) {
	f := newFactsheet()
	note := func(name schema.GroupResource, key syncer.Key, text string) {
		var object map[string]any
		if err := yaml.Unmarshal([]byte(text), &object); err != nil {
			t.Fatal(err)
		}
		f.note(syncer.Resource{GroupVersionResource: name.WithVersion("v1")}, key, &unstructured.Unstructured{Object: object})
	}
	pod := func(name string) syncer.Key { return syncer.Key{Namespace: "pay", Name: name} }
	note(pods, pod("fine"), `{spec: {nodeName: node-1}, status: {phase: Running, containerStatuses: [{name: c, state: {running: {}}}]}}`)
	note(pods, pod("starts"), `{spec: {nodeName: node-1, containers: [{name: c, image: i:1}]}, status: {containerStatuses: [{name: c, state: {waiting: {reason: ContainerCreating}}}]}}`)
	note(pods, pod("lacks"), `{spec: {nodeName: node-1, containers: [{name: c, image: i:2}]}, status: {containerStatuses: [{name: c, image: other, state: {waiting: {reason: ImagePullBackOff}}}]}}`)
	note(pods, pod("waits"), `{spec: {}, status: {phase: Pending, conditions: [{type: PodScheduled, status: "False", reason: Unschedulable}]}}`)
	note(pods, pod("ended"), `{spec: {}, status: {phase: Failed, conditions: [{type: PodScheduled, status: "False", reason: Unschedulable}]}}`)
	note(classes, syncer.Key{Name: "fast"}, `{provisioner: local}`)
	told := func() *agentv1.ClusterFacts {
		var facts agentv1.ClusterFacts
		f.wantedLocked(&facts)
		return &facts
	}
	want := &agentv1.ClusterFacts{StorageClasses: []string{"fast"}, MissingImages: []string{"i:2"}, Crowded: []string{"pay"}}
	if diff := cmp.Diff(want, told(), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	note(pods, pod("lacks"), `{spec: {nodeName: node-1, containers: [{name: c, image: i:2}]}, status: {phase: Running}}`)
	f.forget(syncer.Resource{GroupVersionResource: pods.WithVersion("v1")}, pod("waits"))
	f.forget(syncer.Resource{GroupVersionResource: classes.WithVersion("v1")}, syncer.Key{Name: "fast"})
	if diff := cmp.Diff(&agentv1.ClusterFacts{}, told(), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}
