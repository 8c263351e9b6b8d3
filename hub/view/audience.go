package view

import (
	"context"
	"maps"
	"slices"

	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// audience is the person who asks: which clusters they may see. It belongs to
// one request's goroutine.
type audience struct {
	authorizer authorizer.Authorizer
	ctx        context.Context //nolint:containedctx // the request's, for as long as the request
	seen       map[string]bool
}

func (h *Handler) audienceOf(ctx context.Context) *audience {
	return &audience{authorizer: h.config.Authorizer, ctx: ctx, seen: map[string]bool{}}
}

// sees reports whether the person may get the Cluster.
func (a *audience) sees(cluster string) bool {
	sees, known := a.seen[cluster]
	if !known {
		sees = a.judge(cluster)
		a.seen[cluster] = sees
	}
	return sees
}

// judge denies on error: the authorizer says why in its own log and metrics.
func (a *audience) judge(cluster string) bool {
	person, ok := request.UserFrom(a.ctx)
	if !ok {
		return false
	}
	decision, _, err := a.authorizer.Authorize(a.ctx, authorizer.AttributesRecord{
		User: person, Verb: "get", APIGroup: "tripod.dev", APIVersion: "v1alpha1",
		Resource: "clusters", Name: cluster, ResourceRequest: true,
	})
	return err == nil && decision == authorizer.DecisionAllow
}

// refresh judges anew and reports whether the answer for any cluster changed.
func (a *audience) refresh(clusters []string) (changed bool) {
	for _, cluster := range slices.Concat(clusters, slices.Collect(maps.Keys(a.seen))) {
		sees := a.judge(cluster)
		if before, known := a.seen[cluster]; known && before != sees {
			changed = true
		}
		a.seen[cluster] = sees
	}
	return changed
}

// stillAllowed asks again what was asked before the request was let in.
func (a *audience) stillAllowed() bool {
	attributes, err := filters.GetAuthorizerAttributes(a.ctx)
	if err != nil {
		return false
	}
	decision, _, err := a.authorizer.Authorize(a.ctx, attributes)
	return err == nil && decision == authorizer.DecisionAllow
}

// seesKnown answers from what was judged before, so that it can be asked under
// a lock; a cluster that appeared since is left out.
func (a *audience) seesKnown(cluster string) bool { return a.seen[cluster] }
