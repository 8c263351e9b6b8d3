package gateway

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/audit"
)

// Annotations of the audit event of a request to a cluster. The event's user is who
// asked the hub (and its impersonatedUser, as whom); the cluster was asked as what
// stands here.
const (
	annotationCluster  = "gateway.tripod.dev/cluster"
	annotationAsUser   = "gateway.tripod.dev/as-user"
	annotationAsGroups = "gateway.tripod.dev/as-groups"
	// annotationInner is what is done in the cluster: verb resource/subresource.
	annotationInner = "gateway.tripod.dev/inner"
	// annotationDecision is "passed", or "refused: " and the reason of the Status.
	// Whether RBAC allowed the request to come so far is
	// authorization.k8s.io/decision.
	annotationDecision = "gateway.tripod.dev/decision"
)

// recordPassed notes in the audit event what is passed on, and as whom.
func (g *Routes) recordPassed(r *http.Request, reading *reading, p *passage) {
	groups, err := json.Marshal(p.person.GetGroups()) // a group's name may hold a comma
	if err != nil {
		groups = nil // strings always have a form
	}
	pairs := []string{
		annotationCluster, p.route.cluster,
		annotationAsUser, p.person.GetName(),
		annotationAsGroups, string(groups),
		annotationDecision, "passed",
	}
	if info, err := reading.innerInfo(r, g.inner); err == nil && info.IsResourceRequest {
		pairs = append(pairs, annotationInner, strings.TrimSuffix(info.Verb+" "+info.Resource+"/"+info.Subresource, "/"))
	}
	audit.AddAuditAnnotations(r.Context(), pairs...)
}

// deny refuses a request to a cluster and notes why.
func deny(ctx context.Context, w http.ResponseWriter, cluster string, status metav1.Status) {
	audit.AddAuditAnnotations(ctx, annotationCluster, cluster, annotationDecision, "refused: "+string(status.Reason))
	refuse(w, status)
}
