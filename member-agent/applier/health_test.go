package applier

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

func TestHealth(t *testing.T) {
	tests := map[string]struct {
		object string
		want   bool
	}{
		"a config map is healthy once applied":    {"{kind: ConfigMap}", true},
		"a deployment with all replicas ready":    {"{kind: Deployment, metadata: {generation: 2}, spec: {replicas: 2}, status: {observedGeneration: 2, updatedReplicas: 2, readyReplicas: 2}}", true},
		"a deployment that lacks a replica":       {"{kind: Deployment, metadata: {generation: 2}, spec: {replicas: 2}, status: {observedGeneration: 2, updatedReplicas: 2, readyReplicas: 1}}", false},
		"a deployment not yet observed":           {"{kind: Deployment, metadata: {generation: 2}, spec: {replicas: 2}, status: {observedGeneration: 1, updatedReplicas: 2, readyReplicas: 2}}", false},
		"a deployment scaled to none":             {"{kind: Deployment, metadata: {generation: 1}, spec: {replicas: 0}, status: {observedGeneration: 1}}", true},
		"a stateful set with its replica ready":   {"{kind: StatefulSet, metadata: {generation: 1}, spec: {replicas: 1}, status: {observedGeneration: 1, updatedReplicas: 1, readyReplicas: 1}}", true},
		"a claim that waits for a volume":         {"{kind: PersistentVolumeClaim, status: {phase: Pending}}", false},
		"a job that failed":                       {"{kind: Job, status: {conditions: [{type: Failed, status: 'True', message: no}]}}", false},
		"a custom object that says Ready False":   {"{kind: Queue, status: {conditions: [{type: Ready, status: 'False'}]}}", false},
		"a custom object that says Ready Unknown": {"{kind: Queue, status: {conditions: [{type: Ready, status: Unknown}]}}", true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			obj := &unstructured.Unstructured{}
			raw, err := yaml.YAMLToJSON([]byte("{apiVersion: x/v1, " + test.object[1:]))
			if err != nil {
				t.Fatal(err)
			}
			if err := obj.UnmarshalJSON(raw); err != nil {
				t.Fatal(err)
			}
			if got, message := health(obj); got != test.want {
				t.Errorf("healthy is %t (%s)", got, message)
			}
		})
	}
}
