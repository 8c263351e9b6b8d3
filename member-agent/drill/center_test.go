package drill

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"
)

var order = Order{Run: "pay.ledger.drill-1", Incarnation: 3, Namespace: "pay", Dataset: "ledger-db", Source: "10.1.2.3:5432",
	StatefulSet: "ledger-db", Secret: "ledger-db-credentials"}

func cluster() *fake.Clientset {
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "pay", Name: "ledger-db"}}
	set.Spec.Template.Spec = corev1.PodSpec{InitContainers: []corev1.Container{{Name: "guard", Image: "guard:7"}},
		Containers: []corev1.Container{{Name: "database", Image: "postgresql:15"}}}
	return fake.NewClientset(set, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "pay", Name: "ledger-db-credentials"},
		Data: map[string][]byte{"database": []byte("ledger"), "replication-password": []byte("r"), "client-password": []byte("theirs")}})
}

// end plays the kubelet.
func end(t *testing.T, client *fake.Clientset, phase corev1.PodPhase, message string) {
	t.Helper()
	pods := client.CoreV1().Pods(order.Place())
	pod, err := pods.Get(t.Context(), podName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pod.Status.Phase = phase
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Message: message}}}}
	if _, err := pods.UpdateStatus(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestADrillIsApartAndLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := cluster()
		c := NewCenter(client)
		var message string
		var err error
		go func() { message, err = c.Start(t.Context(), order) }()
		<-time.After(time.Second) // of the bubble's clock
		synctest.Wait()
		policy, perr := client.NetworkingV1().NetworkPolicies(order.Place()).Get(t.Context(), podName, metav1.GetOptions{})
		if perr != nil || len(policy.Spec.Ingress) != 0 || len(policy.Spec.PolicyTypes) != 2 || len(policy.Spec.PodSelector.MatchLabels) != 0 ||
			len(policy.Spec.Egress) != 1 || policy.Spec.Egress[0].To[0].IPBlock.CIDR != "10.1.2.3/32" {
			t.Errorf("policy %+v, %v", policy, perr)
		}
		secret, serr := client.CoreV1().Secrets(order.Place()).Get(t.Context(), podName, metav1.GetOptions{})
		if serr != nil || len(secret.Data) != 2 {
			t.Errorf("secret %+v, %v", secret, serr)
		}
		end(t, client, corev1.PodSucceeded, `{"rows":12}`)
		<-time.After(time.Second)
		synctest.Wait()
		if err != nil || message != `{"rows":12}` {
			t.Fatalf("%q, %v", message, err)
		}
		if again, err := c.Start(t.Context(), order); err != nil || again != message {
			t.Errorf("asked again: %q, %v", again, err)
		}
		for range 2 {
			if err := c.Stop(t.Context(), order); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := client.CoreV1().Namespaces().Get(t.Context(), order.Place(), metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("the namespace is left: %v", err)
		}
	})
}

func TestADrillThatFailsOrIsStoppedSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := cluster()
		c := NewCenter(client)
		ended := make(chan error, 1)
		go func() { _, err := c.Start(t.Context(), order); ended <- err }()
		<-time.After(time.Second)
		end(t, client, corev1.PodFailed, "no space left")
		if err := <-ended; err == nil || !strings.Contains(err.Error(), "no space left") {
			t.Errorf("failed: %v", err)
		}
		if err := client.CoreV1().Pods(order.Place()).Delete(t.Context(), podName, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		go func() { _, err := c.Start(t.Context(), order); ended <- err }()
		<-time.After(time.Second)
		if err := client.CoreV1().Pods(order.Place()).Delete(t.Context(), podName, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; !errors.Is(err, errRemoved) {
			t.Errorf("stopped: %v", err)
		}
	})
}

// Directives of two members of the hub have no order: one that begins a drill may come
// after the one that ends it, or find its work beside it.
func TestADrillIsNotBegunAfterItsEnd(t *testing.T) {
	left := func(client *fake.Clientset) bool {
		_, err := client.CoreV1().Namespaces().Get(context.Background(), order.Place(), metav1.GetOptions{})
		return !apierrors.IsNotFound(err)
	}
	synctest.Test(t, func(t *testing.T) {
		client := cluster()
		c := NewCenter(client)
		if err := c.Stop(t.Context(), order); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Start(t.Context(), order); !errors.Is(err, errRemoved) || left(client) {
			t.Errorf("begun after its end: %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		client := cluster()
		c := NewCenter(client)
		client.PrependReactor("create", "namespaces", func(k8stesting.Action) (bool, runtime.Object, error) {
			c.stopped.Store(order.Place(), true) // a Stop that has found nothing yet
			return false, nil, nil
		})
		if _, err := c.Start(t.Context(), order); !errors.Is(err, errRemoved) || left(client) {
			t.Errorf("ended while it began: %v", err)
		}
	})
}

func TestANamespaceOfAnotherIsLeftAlone(t *testing.T) {
	client := cluster()
	theirs := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: order.Place()}}
	if _, err := client.CoreV1().Namespaces().Create(context.Background(), theirs, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	c := NewCenter(client)
	if err := c.Stop(context.Background(), order); err == nil {
		t.Error("it was removed")
	}
	if _, err := c.Start(context.Background(), order); err == nil {
		t.Error("it was used")
	}
	if _, err := client.CoreV1().Namespaces().Get(context.Background(), order.Place(), metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
}
