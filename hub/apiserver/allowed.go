package apiserver

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

const (
	// allowedFor bounds how long a right that was found counts without RBAC being asked
	// again, should the news of a change be late. It is as long as a token that was good
	// counts as good.
	allowedFor = tokenCacheSeconds * time.Second
	// allowedMost is how many rights are remembered at most.
	allowedMost = 4096
)

// allowed remembers who may pass through the gateway to what. RBAC copies the list of all
// bindings and reads them one after the other for every request, which is a tenth of what
// the hub adds to one with upstream's seventy bindings, and grows with every binding that
// a fleet has.
//
// Only what RBAC allowed is remembered, under all that it judges by, and only for the
// rules that were in force before it was asked: each change of a role or binding that this
// member hears of ends every memory. What is refused is judged anew each time, and so is
// everything that is not of the gateway.
type allowed struct {
	next authorizer.Authorizer
	now  func() time.Time
	// rules counts the changes of roles and bindings.
	rules atomic.Uint64

	mu    sync.RWMutex
	known map[passing]permit
}

// passing is all that RBAC judges a request through the gateway by.
type passing struct{ user, groups, verb, resource, namespace, name string }

type permit struct {
	rules  uint64
	until  time.Time
	reason string
}

func newAllowed(next authorizer.Authorizer) *allowed {
	return &allowed{next: next, now: time.Now, known: map[passing]permit{}}
}

// follow hears of changes from the informers that RBAC reads. Before they have begun,
// nothing is served.
func (a *allowed) follow(factory informers.SharedInformerFactory) error {
	rbac := factory.Rbac().V1()
	changed := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { a.rules.Add(1) },
		UpdateFunc: func(any, any) { a.rules.Add(1) },
		DeleteFunc: func(any) { a.rules.Add(1) },
	}
	for _, informer := range []cache.SharedIndexInformer{
		rbac.Roles().Informer(), rbac.RoleBindings().Informer(), rbac.ClusterRoles().Informer(), rbac.ClusterRoleBindings().Informer(),
	} {
		if _, err := informer.AddEventHandler(changed); err != nil {
			return fmt.Errorf("apiserver: follow the changes of rights: %w", err)
		}
	}
	return nil
}

// Authorize implements authorizer.Authorizer.
func (a *allowed) Authorize(ctx context.Context, asked authorizer.Attributes) (authorizer.Decision, string, error) {
	if !passes(asked) {
		return a.next.Authorize(ctx, asked)
	}
	// Read before RBAC is: what changes meanwhile ends what is remembered now.
	rules, now := a.rules.Load(), a.now()
	by := passing{asked.GetUser().GetName(), joined(asked.GetUser()), asked.GetVerb(), asked.GetResource(), asked.GetNamespace(), asked.GetName()}
	a.mu.RLock()
	found, ok := a.known[by]
	a.mu.RUnlock()
	if ok && found.rules == rules && now.Before(found.until) {
		return authorizer.DecisionAllow, found.reason, nil
	}
	decision, reason, err := a.next.Authorize(ctx, asked)
	if err == nil && decision == authorizer.DecisionAllow {
		a.remember(by, permit{rules: rules, until: now.Add(allowedFor), reason: reason})
	}
	return decision, reason, err
}

// passes is true for what the gateway serves.
func passes(asked authorizer.Attributes) bool {
	return asked.IsResourceRequest() && asked.GetSubresource() == "proxy" && asked.GetAPIGroup() == v1alpha1.GroupVersion.Group && asked.GetUser() != nil
}

func (a *allowed) remember(by passing, found permit) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.known) >= allowedMost {
		clear(a.known) // they would have to be found again within 2 s anyway
	}
	a.known[by] = found
}

// joined are the groups as one text that no other groups have.
func joined(u user.Info) string {
	text := make([]byte, 0, 128)
	for _, group := range u.GetGroups() {
		text = append(append(strconv.AppendInt(text, int64(len(group)), 10), ':'), group...)
	}
	return string(text)
}
