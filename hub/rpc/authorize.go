package rpc

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
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
// the group tripod.dev, for the user and groups of the client's certificate.
type RBAC struct {
	Reviews authorizationclient.SubjectAccessReviewInterface
}

// Authorize implements Authorizer.
func (r RBAC) Authorize(ctx context.Context, verb string) error {
	name, groups, err := caller(ctx)
	if err != nil {
		return err
	}
	// RBAC never refuses the masters, and they must not need a hub that works: this
	// is how its state is seen and saved when it has no leader.
	if slices.Contains(groups, MembersOrganization) || slices.Contains(groups, user.SystemPrivilegedGroup) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, reviewTimeout)
	defer cancel()
	review, err := r.Reviews.Create(ctx, &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User: name, Groups: append(groups, "system:authenticated"),
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

// caller returns who the verified client certificate names, as Kubernetes reads
// it: the common name is the user, the organizations are the groups.
func caller(ctx context.Context) (user string, groups []string, err error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return "", nil, status.Error(codes.Unauthenticated, "the caller is unknown")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return "", nil, status.Error(codes.Unauthenticated, "show a client certificate of the hub's CA, for instance that of admin.kubeconfig")
	}
	subject := info.State.PeerCertificates[0].Subject
	if strings.TrimSpace(subject.CommonName) == "" {
		return "", nil, status.Error(codes.Unauthenticated, fmt.Sprintf("the client certificate %q names no user", subject))
	}
	return subject.CommonName, subject.Organization, nil
}
