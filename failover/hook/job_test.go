package hook

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// member is a cluster that hooks may reach; asked are the names that were asked for.
type member struct {
	*fake.Clientset
	asked []string
}

func (m *member) runner() *Runner {
	return New(Config{Cluster: func(name string) (kubernetes.Interface, func(), error) {
		m.asked = append(m.asked, name)
		if name == "gone" {
			return nil, nil, errors.New("no session with it")
		}
		return m.Clientset, func() {}, nil
	}})
}

func jobbing(in v1alpha1.HookPlace, cluster string) failover.HookCall {
	c := called(v1alpha1.PlanHook{Job: &v1alpha1.JobHook{In: in, Cluster: cluster, Image: "tool:1", Env: map[string]string{"MODE": "fast"}}})
	c.Run.Status.Datasets[0].PreviousPrimary = "north-1"
	return c
}

// ends plays the Job's controller and the kubelet.
func (m *member) ends(t *testing.T, c failover.HookCall, as batchv1.JobConditionType) {
	t.Helper()
	want := jobOf(c)
	job, err := m.BatchV1().Jobs(want.Namespace).Get(t.Context(), want.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: job.Namespace, Name: job.Name + "-x", Labels: job.Spec.Template.Labels}}
	if _, err := m.CoreV1().Pods(job.Namespace).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	job.Status.Conditions = []batchv1.JobCondition{{Type: as, Status: corev1.ConditionTrue, Reason: "BackoffLimitExceeded"}}
	if _, err := m.BatchV1().Jobs(job.Namespace).UpdateStatus(t.Context(), job, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestAJobIsMadeOnceAndItsEndIsTheResult(t *testing.T) {
	for as, want := range map[batchv1.JobConditionType]failover.Outcome{batchv1.JobComplete: failover.Done, batchv1.JobFailed: failover.Failed} {
		synctest.Test(t, func(t *testing.T) {
			m := &member{Clientset: fake.NewClientset()}
			c := jobbing(v1alpha1.HookTarget, "")
			r := m.runner()
			results := make(chan failover.Result, 2)
			for range 2 { // two leaders ask for the same attempt
				go func() { results <- r.Do(t.Context(), c) }()
			}
			synctest.Wait()
			m.ends(t, c, as)
			for range 2 {
				if got := <-results; got.Outcome != want || !strings.Contains(got.Message, "in cluster north-2") || !strings.Contains(got.Message, "the end of its log: fake logs") {
					t.Errorf("%s: %+v", as, got)
				}
			}
			jobs, err := m.BatchV1().Jobs("pay").List(t.Context(), metav1.ListOptions{})
			if err != nil || len(jobs.Items) != 1 {
				t.Fatalf("%d Jobs, %v", len(jobs.Items), err)
			}
			spec := jobs.Items[0].Spec
			if *spec.BackoffLimit != 0 || *spec.ActiveDeadlineSeconds != 5 || *spec.TTLSecondsAfterFinished != 600 || spec.Template.Spec.RestartPolicy != corev1.RestartPolicyNever {
				t.Errorf("%+v", spec)
			}
			env := ""
			for _, e := range spec.Template.Spec.Containers[0].Env {
				env += e.Name + "=" + e.Value + " "
			}
			for _, want := range []string{"MODE=fast", "TRIPOD_RUN=out.1.pay.ledger", "TRIPOD_IDEMPOTENCY_KEY=out.1.pay.ledger/hook.tell/2"} {
				if !strings.Contains(env, want) {
					t.Errorf("the environment %s lacks %s", env, want)
				}
			}
			// A leader that takes over reads the end, and nothing is done again.
			if again := r.Do(t.Context(), c); again.Outcome != want {
				t.Errorf("asked again: %+v", again)
			}
		})
	}
}

func TestAJobThatTakesTooLongIsRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &member{Clientset: fake.NewClientset()}
		c := jobbing(v1alpha1.HookActive, "")
		began := time.Now()
		got := m.runner().Do(t.Context(), c)
		if got.Outcome != failover.Failed || !strings.Contains(got.Message, "not done within 5s") || time.Since(began) != 5*time.Second {
			t.Errorf("%+v after %v", got, time.Since(began))
		}
		if _, err := m.BatchV1().Jobs("pay").Get(t.Context(), jobOf(c).Name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("the Job is left: %v", err)
		}
		if m.asked[0] != "north-1" {
			t.Errorf("it was made in %s", m.asked[0])
		}
	})
}

func TestAJobThatCannotBeMadeSaysWhy(t *testing.T) {
	m := &member{Clientset: fake.NewClientset()}
	unknown := jobbing(v1alpha1.HookTarget, "")
	unknown.Run.Status.Datasets = nil
	reserved := jobbing(v1alpha1.HookNamed, "north-2")
	reserved.Hook.Job.Namespace = "kube-system"
	for want, c := range map[string]failover.HookCall{
		"reach cluster gone: no session with it": jobbing(v1alpha1.HookNamed, "gone"),
		"the cluster Target is not known at":     unknown,
		"no Job runs in namespace kube-system":   reserved,
	} {
		if got := m.runner().Do(t.Context(), c); got.Outcome != failover.Failed || !strings.Contains(got.Message, want) {
			t.Errorf("%+v, want %q", got, want)
		}
	}
	taken := jobbing(v1alpha1.HookNamed, "north-2")
	foreign := jobOf(taken)
	foreign.Annotations = nil
	if _, err := m.BatchV1().Jobs("pay").Create(t.Context(), foreign, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := m.runner().Do(t.Context(), taken); !strings.Contains(got.Message, "another Job has its name") {
		t.Errorf("%+v", got)
	}
	if got := New(Config{}).Do(t.Context(), taken); !strings.Contains(got.Message, "makes none") {
		t.Errorf("%+v", got)
	}
}
