package apiserver

import (
	"context"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"tripod.dev/tripod/test/freeport"
)

// TestADeadWebhookHoldsUpNobodyButStrangers: one for everything, whose server is gone,
// as it may be when a center is.
func TestADeadWebhookHoldsUpNobodyButStrangers(t *testing.T) {
	h := startHub(t, nil)
	own, stranger := h.typed(t, h.server.Loopback()), h.typed(t, h.admin())
	everything := admissionv1.RuleWithOperations{Operations: []admissionv1.OperationType{admissionv1.OperationAll},
		Rule: admissionv1.Rule{APIGroups: []string{"*"}, APIVersions: []string{"*"}, Resources: []string{"*/*"}}}
	url, fail, none, second := "https://"+freeport.Addresses(t, 1)[0], admissionv1.Fail, admissionv1.SideEffectClassNone, int32(1)
	kube := kubernetes.NewForConfigOrDie(h.admin())
	_, err := kube.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(t.Context(), &admissionv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "dead"}, Webhooks: []admissionv1.ValidatingWebhook{{Name: "dead.example.com", FailurePolicy: &fail, SideEffects: &none,
			TimeoutSeconds: &second, AdmissionReviewVersions: []string{"v1"}, Rules: []admissionv1.RuleWithOperations{everything},
			ClientConfig: admissionv1.WebhookClientConfig{URL: &url}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the webhook holds up a person", func(ctx context.Context) string {
		run := testRun("of-a-person")
		if err := stranger.Create(ctx, run); err == nil {
			if err := own.Delete(ctx, run); err != nil {
				return err.Error()
			}
			return "it was created"
		}
		return ""
	})
	run := testRun("of-the-hub")
	if err := own.Create(t.Context(), run); err != nil {
		t.Fatalf("the hub's own run is held up: %v", err)
	}
	run.Status.Message = "on its way"
	if err := own.Status().Update(t.Context(), run); err != nil {
		t.Errorf("its journal, through the API, is held up: %v", err)
	}
	if err := h.server.Statuses().Update(t.Context(), run); err != nil {
		t.Errorf("its journal is held up: %v", err)
	}
}
