package rpc

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
)

// MembersOrganization is the certificate organization of hub members, who may
// ask one another anything.
const MembersOrganization = "tripod:members"

// reviewTimeout bounds how long the member's own API server may take to answer.
const reviewTimeout = 2 * time.Second

// RBAC authorizes by the hub's own RBAC: the verb on the resource "members" of
// the group tripod.dev, for who calls; see Authenticated.
type RBAC struct {
	Reviews authorizationclient.SubjectAccessReviewInterface
}

// Authorize implements Authorizer.
func (r RBAC) Authorize(ctx context.Context, verb string) error {
	who, err := calling(ctx)
	if err != nil {
		return err
	}
	name := who.GetName()
	// RBAC never refuses the masters, and they must not need a hub that works: this
	// is how its state is seen and saved when it has no leader.
	if trusted(who) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, reviewTimeout)
	defer cancel()
	review, err := r.Reviews.Create(ctx, &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User: name, UID: who.GetUID(), Groups: groupsOf(who), Extra: extraOf(who),
			ResourceAttributes: &authorizationv1.ResourceAttributes{Group: "tripod.dev", Resource: "members", Verb: verb},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return status.Errorf(codes.Unavailable, "the API server of this member does not say whether %s may do this: %v; look at its log, or ask another member (--hub)", name, err)
	}
	if !review.Status.Allowed {
		return status.Errorf(codes.PermissionDenied, "user %q cannot %s members of the group tripod.dev: bind a role that allows it, for instance tripod:operator", name, verb)
	}
	return nil
}

// groupsOf adds the group of everybody, which a certificate does not name.
func groupsOf(u user.Info) []string {
	if slices.Contains(u.GetGroups(), user.AllAuthenticated) {
		return u.GetGroups()
	}
	return append(slices.Clone(u.GetGroups()), user.AllAuthenticated)
}

func extraOf(u user.Info) map[string]authorizationv1.ExtraValue {
	extra := map[string]authorizationv1.ExtraValue{}
	for key, values := range u.GetExtra() {
		extra[key] = values
	}
	return extra
}
