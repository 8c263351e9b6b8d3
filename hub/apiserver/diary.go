package apiserver

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/uuid"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// diary writes the hub's own status updates into the audit log, as if they had come as
// requests, if the audit policy wants those.
type diary struct {
	policy audit.PolicyRuleEvaluator
	log    audit.Sink // nil writes nothing
}

// The engine is who the member's loopback client is.
var hubItself = &user.DefaultInfo{Name: user.APIServerUser, Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}}

func (d *diary) note(resource schema.GroupResource, obj client.Object, status json.RawMessage, begun time.Time, outcome error) {
	if d.log == nil || d.policy == nil {
		return
	}
	version := v1alpha1.GroupVersion.Version
	rule := d.policy.EvaluatePolicyRule(authorizer.AttributesRecord{
		User: hubItself, Verb: "update", APIGroup: resource.Group, APIVersion: version, Resource: resource.Resource,
		Subresource: "status", Namespace: obj.GetNamespace(), Name: obj.GetName(), ResourceRequest: true,
	})
	if rule.Level == auditinternal.LevelNone {
		return
	}
	event := &auditinternal.Event{
		Level: rule.Level, AuditID: uuid.NewUUID(), Stage: auditinternal.StageResponseComplete, Verb: "update",
		User:      authenticationv1.UserInfo{Username: hubItself.Name, Groups: hubItself.Groups},
		SourceIPs: []string{"127.0.0.1"}, UserAgent: "tripod-hub/engine", RequestURI: statusURI(resource, obj),
		ObjectRef: &auditinternal.ObjectReference{
			APIGroup: resource.Group, APIVersion: version, Resource: resource.Resource, Subresource: "status",
			Namespace: obj.GetNamespace(), Name: obj.GetName(), UID: obj.GetUID(), ResourceVersion: obj.GetResourceVersion(),
		},
		ResponseStatus:           answer(outcome),
		RequestReceivedTimestamp: metav1.NewMicroTime(begun), StageTimestamp: metav1.NowMicro(),
	}
	if rule.Level.GreaterOrEqual(auditinternal.LevelRequest) {
		body := append(append([]byte(`{"status":`), status...), '}')
		event.RequestObject = &runtime.Unknown{Raw: body, ContentType: runtime.ContentTypeJSON}
	}
	d.log.ProcessEvents(event)
}

func statusURI(resource schema.GroupResource, obj client.Object) string {
	at := "/apis/" + v1alpha1.GroupVersion.String()
	if ns := obj.GetNamespace(); ns != "" {
		at += "/namespaces/" + ns
	}
	return at + "/" + resource.Resource + "/" + obj.GetName() + "/status"
}

// answer is what a client would have been told.
func answer(outcome error) *metav1.Status {
	if outcome == nil {
		return &metav1.Status{Code: http.StatusOK}
	}
	if known := apierrors.APIStatus(nil); errors.As(outcome, &known) {
		status := known.Status()
		return &status
	}
	return &metav1.Status{Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Message: outcome.Error()}
}
