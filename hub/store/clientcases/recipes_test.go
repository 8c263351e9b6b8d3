package clientcases_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/client/v3/leasing"
	"go.etcd.io/etcd/client/v3/mirror"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.etcd.io/etcd/client/v3/naming/endpoints"

	"tripod.dev/tripod/hub/store/storetest"
)

// TestRecipes runs what etcd's client builds on the API.
func TestRecipes(t *testing.T) {
	t.Parallel()
	c := storetest.Start(t, 3, steady)
	for name, run := range map[string]func(*testing.T, *session){
		"sessions":                          recipeSession,
		"a mutex":                           recipeMutex,
		"an election":                       recipeElection,
		"transactional memory":              recipeSTM,
		"names under a prefix":              recipeNamespace,
		"a mirror":                          recipeMirror,
		"keys that a client leases":         recipeLeasing,
		"names of endpoints and their ends": recipeNaming,
		"names that come and go together":   recipeNamingTogether,
	} {
		t.Run(name, func(t *testing.T) { everywhere(t, c, run) })
	}
}

func (s *session) concurrency(opts ...concurrency.SessionOption) *concurrency.Session {
	s.t.Helper()
	session, err := concurrency.NewSession(s.Client, append([]concurrency.SessionOption{concurrency.WithContext(s.ctx)}, opts...)...)
	s.check("session", err)
	return session
}

func recipeSession(t *testing.T, s *session) {
	lease := s.grant(120)
	given := s.concurrency(concurrency.WithLease(lease))
	if given.Lease() != lease {
		t.Errorf("the session has lease %x, want %x", given.Lease(), lease)
	}
	s.put("session", "v", clientv3.WithLease(lease))
	s.check("close", given.Close())
	<-given.Done()
	if s.get("session").Count != 0 {
		t.Error("the key of a session that was closed is still there")
	}
	timed := s.concurrency(concurrency.WithTTL(77))
	r, err := s.TimeToLive(s.ctx, timed.Lease())
	s.check("time to live", err)
	if r.GrantedTTL != 77 {
		t.Errorf("the lease has %d s, want 77", r.GrantedTTL)
	}
	_, err = s.Revoke(s.ctx, timed.Lease())
	s.check("revoke", err)
	timed.Orphan()
	kept := s.concurrency()
	ctx := kept.Ctx()
	kept.Orphan()
	<-ctx.Done()
	if _, err := s.KeepAliveOnce(s.ctx, kept.Lease()); err != nil {
		t.Errorf("the lease of an orphaned session: %v", err)
	}
}

func recipeMutex(t *testing.T, s *session) {
	var held, wg = 0, sync.WaitGroup{}
	for range 5 {
		session := s.concurrency()
		m := concurrency.NewMutex(session, "mutex")
		wg.Go(func() {
			defer session.Close()
			if err := m.Lock(s.ctx); err != nil {
				t.Errorf("lock: %v", err)
				return
			}
			// The race detector, or a lost count, finds two at once.
			held++
			if err := m.Unlock(s.ctx); err != nil {
				t.Errorf("unlock: %v", err)
			}
		})
	}
	wg.Wait()
	if held != 5 {
		t.Errorf("%d of 5 held the lock", held)
	}
	holder, other := s.concurrency(), s.concurrency()
	defer other.Close()
	s.check("lock", concurrency.NewMutex(holder, "mutex").Lock(s.ctx))
	if err := concurrency.NewMutex(other, "mutex").TryLock(s.ctx); !errors.Is(err, concurrency.ErrLocked) {
		t.Errorf("a lock that another holds: %v", err)
	}
	s.check("close", holder.Close())
	s.check("lock after the holder's end", concurrency.NewMutex(other, "mutex").Lock(s.ctx))
}

func recipeElection(t *testing.T, s *session) {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	observer := s.concurrency()
	defer observer.Close()
	observed := concurrency.NewElection(observer, "election").Observe(ctx)
	for i := range 3 {
		session := s.concurrency()
		e := concurrency.NewElection(session, "election")
		name := fmt.Sprintf("candidate %d", i)
		s.check("campaign", e.Campaign(s.ctx, name))
		if r, ok := <-observed; !ok || string(r.Kvs[0].Value) != name {
			t.Errorf("observed %v, want %s", r.Kvs, name)
		}
		if i == 1 {
			s.check("resign", e.Resign(s.ctx))
		}
		s.check("close", session.Close())
	}
	if _, err := concurrency.NewElection(observer, "election").Leader(s.ctx); !errors.Is(err, concurrency.ErrElectionNoLeader) {
		t.Errorf("nobody leads: %v", err)
	}
}

// recipeSTM moves money between accounts from many sides; the sum stays.
func recipeSTM(t *testing.T, s *session) {
	for i := range 4 {
		s.put(fmt.Sprintf("account%d", i), "xxxx")
	}
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			from, to := fmt.Sprintf("account%d", i%4), fmt.Sprintf("account%d", (i+1+i%3)%4)
			_, err := concurrency.NewSTM(s.Client, func(stm concurrency.STM) error {
				a, b := stm.Get(from), stm.Get(to)
				if a != "" && from != to {
					stm.Put(from, a[1:])
					stm.Put(to, b+"x")
				}
				return nil
			}, concurrency.WithAbortContext(s.ctx))
			if err != nil {
				t.Errorf("transaction: %v", err)
			}
		})
	}
	wg.Wait()
	sum := 0
	for _, kv := range s.get("account", clientv3.WithPrefix()).Kvs {
		sum += len(kv.Value)
	}
	if sum != 16 {
		t.Errorf("the accounts hold %d, want 16", sum)
	}
}

func recipeNamespace(t *testing.T, s *session) {
	s.delete("ns/", clientv3.WithPrefix())
	kv, watcher := namespace.NewKV(s.KV, "ns/"), namespace.NewWatcher(s.Watcher, "ns/")
	w := watcher.Watch(s.ctx, "a", clientv3.WithCreatedNotify())
	s.next(w)
	if _, err := kv.Put(s.ctx, "a", "1"); err != nil {
		t.Fatal(err)
	}
	if s.get("ns/a").Count != 1 {
		t.Error("the key is not under the prefix")
	}
	r, err := kv.Get(s.ctx, "", clientv3.WithFromKey())
	s.check("get", err)
	if keysOf(r) != "a" || string(s.events(w, 1)[0].Kv.Key) != "a" {
		t.Errorf("keys %q", keysOf(r))
	}
}

func recipeMirror(t *testing.T, s *session) {
	s.delete("mirror", clientv3.WithPrefix())
	for i := range 30 {
		s.put(fmt.Sprintf("mirror%02d", i), "v")
	}
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	syncer := mirror.NewSyncer(s.Client, "mirror", 0)
	base, errs := syncer.SyncBase(ctx)
	n := 0
	for r := range base {
		n += len(r.Kvs)
	}
	for err := range errs {
		t.Errorf("base: %v", err)
	}
	updates := syncer.SyncUpdates(ctx)
	s.put("mirror30", "v")
	if e := s.events(updates, 1)[0]; n != 30 || string(e.Kv.Key) != "mirror30" {
		t.Errorf("a base of %d keys, then %v", n, e)
	}
}

// recipeLeasing: a key that a client has leased for itself is read from its own
// memory until another one writes it.
func recipeLeasing(t *testing.T, s *session) {
	s.delete("leasing/", clientv3.WithPrefix())
	s.put("leasing/data/k", "1")
	owner, closeOwner, err := leasing.NewKV(s.Client, "leasing/owner/")
	s.check("leasing", err)
	defer closeOwner()
	other, closeOther, err := leasing.NewKV(s.Client, "leasing/owner/")
	s.check("leasing", err)
	defer closeOther()
	for i, step := range []struct {
		by   clientv3.KV
		want string
	}{{owner, "1"}, {owner, "1"}, {other, "2"}, {owner, "3"}, {other, "4"}} {
		if i > 1 {
			if _, err := step.by.Put(s.ctx, "leasing/data/k", step.want); err != nil {
				t.Fatal(err)
			}
		}
		for _, reader := range []clientv3.KV{owner, other} {
			r, err := reader.Get(s.ctx, "leasing/data/k")
			s.check("get", err)
			if len(r.Kvs) != 1 || string(r.Kvs[0].Value) != step.want {
				t.Errorf("step %d: %v, want %s", i, r.Kvs, step.want)
			}
		}
	}
	if _, err := owner.Delete(s.ctx, "leasing/data/k"); err != nil || s.get("leasing/data/k").Count != 0 {
		t.Errorf("delete: %v", err)
	}
}

// recipeNaming drains the updates to their end: etcd's goroutine that tells them
// blocks on one that nobody takes, whatever its context says.
func recipeNaming(t *testing.T, s *session) {
	// The first list is a serializable read. It may be older than what another
	// member was told, so each has a service of its own.
	service := s.own("service")
	m, err := endpoints.NewManager(s.Client, service)
	s.check("manager", err)
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	updates, err := m.NewWatchChannel(ctx)
	s.check("watch", err)
	key := service + "/a"
	s.check("add", m.AddEndpoint(s.ctx, key, endpoints.Endpoint{Addr: "127.0.0.1:1"}))
	if u := <-updates; len(u) != 1 || u[0].Op != endpoints.Add || u[0].Endpoint.Addr != "127.0.0.1:1" {
		t.Errorf("update %+v", u)
	}
	list, err := m.List(s.ctx)
	s.check("list", err)
	if len(list) != 1 || list[key].Addr != "127.0.0.1:1" {
		t.Errorf("list %v", list)
	}
	s.check("delete", m.DeleteEndpoint(s.ctx, key))
	if u := <-updates; len(u) != 1 || u[0].Op != endpoints.Delete || u[0].Key != key {
		t.Errorf("update %+v", u)
	}
	cancel()
	for u := range updates {
		t.Errorf("an update of nothing: %+v", u)
	}
}

// recipeNamingTogether: what one transaction adds or deletes is one update, and of
// another service nothing is told.
func recipeNamingTogether(t *testing.T, s *session) {
	service := s.own("together")
	m, err := endpoints.NewManager(s.Client, service)
	s.check("manager", err)
	other, err := endpoints.NewManager(s.Client, service+"_other")
	s.check("manager", err)
	s.check("add to the other", other.AddEndpoint(s.ctx, service+"_other/a", endpoints.Endpoint{Addr: "127.0.0.1:3"}))
	s.check("add", m.Update(s.ctx, []*endpoints.UpdateWithOpts{
		endpoints.NewAddUpdateOpts(service+"/a", endpoints.Endpoint{Addr: "127.0.0.1:1"}),
		endpoints.NewAddUpdateOpts(service+"/b", endpoints.Endpoint{Addr: "127.0.0.1:2"}),
	}))
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	updates, err := m.NewWatchChannel(ctx)
	s.check("watch", err)
	if u := <-updates; len(u) != 2 || u[0].Op != endpoints.Add || u[1].Op != endpoints.Add {
		t.Errorf("first list %+v", u)
	}
	s.check("delete from the other", other.DeleteEndpoint(s.ctx, service+"_other/a"))
	s.commit(s.Txn(s.ctx).Then(clientv3.OpDelete(service+"/a"), clientv3.OpDelete(service+"/b")))
	if u := <-updates; len(u) != 2 || u[0].Op != endpoints.Delete || u[1].Op != endpoints.Delete {
		t.Errorf("update %+v", u)
	}
	cancel()
	for u := range updates {
		t.Errorf("an update of nothing: %+v", u)
	}
}
