package hook

import (
	"context"
	"errors"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

func TestAHookThatCouldNotRunIsNamedBeforehand(t *testing.T) {
	client := fake.NewClientset()
	tried := 0
	client.PrependReactor("create", "jobs", func(a k8stesting.Action) (bool, runtime.Object, error) {
		if options := a.(k8stesting.CreateActionImpl).CreateOptions; len(options.DryRun) != 1 {
			t.Errorf("a Job was made in earnest: %+v", options)
		}
		tried++
		if a.GetNamespace() == "closed" {
			return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "jobs"}, "", errors.New("no such right"))
		}
		return true, &batchv1.Job{}, nil
	})
	r := New(Config{
		Headers: func(_ context.Context, name string) (map[string]string, error) {
			if name == "there" {
				return nil, nil
			}
			return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, name)
		},
		Cluster: func(name string) (kubernetes.Interface, func(), error) {
			if name == "silent" {
				return nil, nil, errors.New("not heard")
			}
			return client, func() {}, nil
		},
	})
	wait := func(condition string) v1alpha1.PlanHook {
		return v1alpha1.PlanHook{Name: "h", Wait: &v1alpha1.WaitHook{Condition: condition}}
	}
	job := v1alpha1.PlanHook{Name: "h", Job: &v1alpha1.JobHook{In: v1alpha1.HookActive, Image: "busybox"}}
	for name, tc := range map[string]struct {
		hook   v1alpha1.PlanHook
		places []failover.JobPlace
		want   string
	}{
		"a condition that is right":            {wait("datasets.all(d, d.status.phase == 'Steady')"), nil, ""},
		"one that does not compile":            {wait("datasets.al("), nil, "condition is not valid"},
		"one that is no truth value":           {wait("size(datasets)"), nil, "want a bool"},
		"headers that are there":               {v1alpha1.PlanHook{HTTP: &v1alpha1.HTTPHook{HeaderSecret: "there"}}, nil, ""},
		"headers that are not":                 {v1alpha1.PlanHook{Message: &v1alpha1.MessageHook{HeaderSecret: "gone"}}, nil, "not there"},
		"authorities that are none":            {v1alpha1.PlanHook{GRPC: &v1alpha1.GRPCHook{CABundle: "x"}}, nil, "PEM"},
		"a Job where the agent may make it":    {job, []failover.JobPlace{{Cluster: "north-1", Namespace: "pay"}}, ""},
		"a Job where it may not":               {job, []failover.JobPlace{{Cluster: "north-1", Namespace: "pay"}, {Cluster: "north-2", Namespace: "closed"}}, "namespace closed of cluster north-2"},
		"a Job in a cluster that is not heard": {job, []failover.JobPlace{{Cluster: "silent", Namespace: "closed"}}, ""},
		"a Job among Kubernetes' own":          {job, []failover.JobPlace{{Cluster: "north-1", Namespace: "kube-system"}}, "belongs to Kubernetes"},
	} {
		err := r.Check(t.Context(), "city", tc.hook, tc.places)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
	if tried != 3 {
		t.Errorf("%d Jobs were tried, want 3", tried)
	}
}
