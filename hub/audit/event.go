package audit

import (
	"maps"
	"strings"

	auditinternal "k8s.io/apiserver/pkg/apis/audit"

	"tripod.dev/tripod/hub/api/audittrail"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// AnnotationCluster names the cluster that a request was for. The gateway sets it
// with what else it knows; a request that RBAC has refused never came so far.
const AnnotationCluster = "gateway.tripod.dev/cluster"

// annotations are the event's with those of the log. Nothing that a request or an
// admission policy brings can look like the log's own.
func (l *Log) annotations(event *auditinternal.Event) map[string]string {
	all := make(map[string]string, len(event.Annotations)+2)
	maps.Copy(all, event.Annotations)
	maps.DeleteFunc(all, func(key, _ string) bool { return strings.HasPrefix(key, audittrail.Prefix) })
	all[AnnotationMember] = l.config.Member
	if ref := event.ObjectRef; ref != nil && ref.Resource == "clusters" && ref.Subresource == "proxy" &&
		ref.APIGroup == v1alpha1.GroupVersion.Group && all[AnnotationCluster] == "" && ref.Name != "" {
		all[AnnotationCluster] = ref.Name
	}
	return all
}
