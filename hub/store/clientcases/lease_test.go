package clientcases_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/etcdapi"
	"tripod.dev/tripod/hub/store/storetest"
)

func TestLease(t *testing.T) {
	t.Parallel()
	c := storetest.Start(t, 3, steady)
	for name, run := range map[string]func(*testing.T, *session){
		"granted with an ID of its own":       leaseIDs,
		"requests that are refused":           leaseRefused,
		"a revoked lease takes its keys":      leaseRevoke,
		"kept alive once":                     leaseKeepAliveOnce,
		"kept alive by a stream":              leaseKeepAlive,
		"time to live":                        leaseTimeToLive,
		"the list":                            leaseList,
		"a key goes from one to another":      leaseSwitch,
		"many at once":                        leaseStress,
		"a key of a lease that does not live": leaseOfNobody,
	} {
		t.Run(name, func(t *testing.T) { everywhere(t, c, run) })
	}
}

// TestLeaseEnds is of what takes the time of a lease.
func TestLeaseEnds(t *testing.T) {
	t.Parallel()
	c := storetest.Start(t, 3, steady)
	t.Run("together", func(t *testing.T) {
		for _, m := range []*storetest.Member{c.Leader(), c.Follower()} {
			t.Run("the end of what is kept alive, "+m.Name, func(t *testing.T) {
				t.Parallel()
				leaseKeepAliveEnds(t, join(t, c, m))
			})
			t.Run("one that is over takes its keys, "+m.Name, func(t *testing.T) {
				t.Parallel()
				leaseExpiry(t, join(t, c, m))
			})
		}
	})
	t.Run("survives a change of leader", func(t *testing.T) { leaseFailover(t, c) })
}

func leaseIDs(t *testing.T, s *session) {
	for name, id := range map[string]int64{"none": 0, "small": 12345, "largest": math.MaxInt64, "negative": -1, "smallest": math.MinInt64} {
		r, err := s.leases().LeaseGrant(s.ctx, &pb.LeaseGrantRequest{ID: id, TTL: 300})
		s.check(name, err)
		if r.ID == 0 || id != 0 && r.ID != id || id == 0 && r.ID < 0 || r.TTL != 300 || r.Error != "" {
			t.Errorf("%s: granted %d for %d s, asked for %d", name, r.ID, r.TTL, id)
		}
		s.put("key", "v", clientv3.WithLease(clientv3.LeaseID(r.ID)))
		if _, err := s.leases().LeaseGrant(s.ctx, &pb.LeaseGrantRequest{ID: r.ID, TTL: 300}); !isStatus(err, rpctypes.ErrGRPCLeaseExist) {
			t.Errorf("%s: granted a second time: %v", name, err)
		}
		s.revoke(clientv3.LeaseID(r.ID))
		if n := s.get("key").Count; n != 0 {
			t.Errorf("%s: its key is still there", name)
		}
	}
}

func leaseRefused(t *testing.T, s *session) {
	before := s.revision()
	for name, test := range map[string]struct {
		call func() error
		want error
	}{
		"too long":          {func() error { _, err := s.Grant(s.ctx, 9_000_000_001); return err }, rpctypes.ErrLeaseTTLTooLarge},
		"revoke of none":    {func() error { _, err := s.Revoke(s.ctx, 500); return err }, rpctypes.ErrLeaseNotFound},
		"keep none alive":   {func() error { _, err := s.KeepAliveOnce(s.ctx, 500); return err }, rpctypes.ErrLeaseNotFound},
		"put with none":     {func() error { _, err := s.Put(s.ctx, "key", "v", clientv3.WithLease(500)); return err }, rpctypes.ErrLeaseNotFound},
		"the longest there": {func() error { _, err := s.Grant(s.ctx, 9_000_000_000); return err }, nil},
	} {
		if err := test.call(); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	short, err := s.Grant(s.ctx, 0)
	s.check("grant of 0 s", err)
	if short.TTL < 1 {
		t.Errorf("a lease of 0 s is given %d s, want a whole election at least", short.TTL)
	}
	if after := s.revision(); after != before {
		t.Errorf("leases moved the revision from %d to %d", before, after)
	}
}

func leaseRevoke(t *testing.T, s *session) {
	lease := s.grant(300)
	for i := range 3 {
		s.put(fmt.Sprintf("leased%d", i), "v", clientv3.WithLease(lease))
	}
	before := s.put("other", "v").Header.Revision
	w := s.Watch(s.ctx, "leased", clientv3.WithPrefix(), clientv3.WithRev(before+1), clientv3.WithPrevKV())
	r, err := s.Revoke(s.ctx, lease)
	s.check("revoke", err)
	if r.Header.Revision != before+1 {
		t.Errorf("three keys went at revision +%d, want +1", r.Header.Revision-before)
	}
	for i, e := range s.events(w, 3) {
		if e.Type != clientv3.EventTypeDelete || string(e.Kv.Key) != fmt.Sprintf("leased%d", i) || e.Kv.ModRevision != before+1 || e.PrevKv == nil {
			t.Errorf("event %d: %v", i, e)
		}
	}
	if s.get("leased", clientv3.WithPrefix()).Count != 0 || s.get("other").Count != 1 {
		t.Error("the wrong keys are gone")
	}
	if _, err := s.Revoke(s.ctx, lease); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.Errorf("revoked again: %v", err)
	}
	empty := s.grant(300)
	r, err = s.Revoke(s.ctx, empty)
	s.check("revoke", err)
	if r.Header.Revision != before+1 {
		t.Error("the end of a lease without keys moved the revision")
	}
}

func leaseKeepAliveOnce(t *testing.T, s *session) {
	lease := s.grant(300)
	r, err := s.KeepAliveOnce(s.ctx, lease)
	s.check("keep alive", err)
	if r.ID != lease || r.TTL != 300 || r.Revision == 0 {
		t.Errorf("answer %+v", r)
	}
	s.revoke(lease)
	if _, err := s.KeepAliveOnce(s.ctx, lease); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.Errorf("of a revoked lease: %v", err)
	}
}

func leaseKeepAlive(t *testing.T, s *session) {
	stream, err := s.leases().LeaseKeepAlive(s.ctx)
	s.check("stream", err)
	lease := s.grant(300)
	for _, test := range []struct {
		id  clientv3.LeaseID
		ttl int64
	}{{lease, 300}, {lease, 300}, {500, 0}, {lease, 300}} {
		s.check("send", stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(test.id)}))
		r, err := stream.Recv()
		s.check("receive", err)
		if r.ID != int64(test.id) || r.TTL != test.ttl || r.Header.GetMemberId() == 0 {
			t.Errorf("lease %x: %v, want %d s", test.id, r, test.ttl)
		}
	}
	s.check("half-close", stream.CloseSend())
	if r, err := stream.Recv(); err == nil {
		t.Errorf("after the end of the requests came %v", r)
	}
	s.revoke(lease)
}

// leaseKeepAliveEnds: the client's channel is closed when the lease is revoked,
// when its context ends, and when the client is closed.
func leaseKeepAliveEnds(t *testing.T, s *session) {
	drained := func(what string, ch <-chan *clientv3.LeaseKeepAliveResponse) {
		for {
			select {
			case _, ok := <-ch:
				if !ok {
					return
				}
			case <-s.ctx.Done():
				t.Fatalf("%s: the channel is not closed", what)
			}
		}
	}
	alive := func(ctx context.Context, lease clientv3.LeaseID) <-chan *clientv3.LeaseKeepAliveResponse {
		ch, err := s.KeepAlive(ctx, lease)
		s.check("keep alive", err)
		if r, ok := <-ch; !ok || r.ID != lease {
			t.Fatalf("first answer %v", r)
		}
		return ch
	}
	// The client asks again after a third of three seconds, and learns of the end.
	revoked := s.grant(3)
	ch := alive(s.ctx, revoked)
	s.revoke(revoked)
	drained("revoked", ch)
	kept := s.grant(300)
	ctx, cancel := context.WithCancel(s.ctx)
	ch = alive(ctx, kept)
	cancel()
	drained("cancelled", ch)
	ch = alive(s.ctx, kept)
	s.check("close", s.Close())
	drained("closed", ch)
}

func leaseTimeToLive(t *testing.T, s *session) {
	lease := s.grant(300)
	want := []string{"a", "b", "c"}
	for _, key := range want {
		s.put("ttl/"+key, "v", clientv3.WithLease(lease))
	}
	r, err := s.TimeToLive(s.ctx, lease, clientv3.WithAttachedKeys())
	s.check("time to live", err)
	var keys []string
	for _, key := range r.Keys {
		keys = append(keys, string(key[len("ttl/"):]))
	}
	slices.Sort(keys)
	if r.ID != lease || r.GrantedTTL != 300 || r.TTL > 300 || r.TTL < 200 || !slices.Equal(keys, want) {
		t.Errorf("with keys: %+v", r)
	}
	r, err = s.TimeToLive(s.ctx, lease)
	s.check("time to live", err)
	if len(r.Keys) != 0 || r.GrantedTTL != 300 {
		t.Errorf("without keys: %+v", r)
	}
	s.revoke(lease)
	r, err = s.TimeToLive(s.ctx, lease)
	s.check("time to live", err)
	if r.TTL != -1 || r.GrantedTTL != 0 || r.ID != lease || r.Revision == 0 {
		t.Errorf("of a revoked lease: %+v", r)
	}
}

func leaseList(t *testing.T, s *session) {
	var want []clientv3.LeaseID
	for range 5 {
		want = append(want, s.grant(300))
	}
	list := func() []clientv3.LeaseID {
		r, err := s.Leases(s.ctx)
		s.check("list", err)
		var ids []clientv3.LeaseID
		for _, l := range r.Leases {
			ids = append(ids, l.ID)
		}
		return ids
	}
	for _, id := range want {
		if !slices.Contains(list(), id) {
			t.Errorf("lease %x is not in the list", id)
		}
		s.revoke(id)
		if slices.Contains(list(), id) {
			t.Errorf("revoked lease %x is still in the list", id)
		}
	}
}

func leaseSwitch(t *testing.T, s *session) {
	one, two := s.grant(300), s.grant(300)
	s.put("key", "v", clientv3.WithLease(one))
	s.put("key", "v", clientv3.WithLease(two))
	s.revoke(one)
	if s.get("key").Count != 1 {
		t.Fatal("the key went with the lease that it had left")
	}
	s.put("key", "v")
	s.revoke(two)
	kvs := s.get("key").Kvs
	if len(kvs) != 1 || kvs[0].Lease != 0 {
		t.Fatalf("a key without a lease went with one: %v", kvs)
	}
	s.delete("key")
	three := s.grant(300)
	s.put("key", "v", clientv3.WithLease(three))
	s.delete("key")
	s.put("key", "v")
	s.revoke(three)
	if s.get("key").Count != 1 {
		t.Fatal("a key that was deleted and made again went with its old lease")
	}
	s.delete("key")
}

func leaseExpiry(t *testing.T, s *session) {
	key := "short " + s.member.Name
	w := s.Watch(s.ctx, key, clientv3.WithRev(s.revision()+1))
	lease := s.grant(1)
	s.put(key, "v", clientv3.WithLease(lease))
	events := s.events(w, 2)
	if events[0].Type != clientv3.EventTypePut || events[1].Type != clientv3.EventTypeDelete {
		t.Errorf("events %v", events)
	}
	if s.get(key).Count != 0 {
		t.Error("the key is still there")
	}
	r, err := s.TimeToLive(s.ctx, lease)
	s.check("time to live", err)
	if r.TTL != -1 {
		t.Errorf("a lease that is over lives for %d s", r.TTL)
	}
}

func leaseStress(t *testing.T, s *session) {
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			r, err := s.Grant(s.ctx, 300)
			if err != nil {
				t.Errorf("grant: %v", err)
				return
			}
			key := fmt.Sprintf("stress%d", i)
			if _, err := s.Put(s.ctx, key, "v", clientv3.WithLease(r.ID)); err != nil {
				t.Errorf("put: %v", err)
			}
			for range 5 {
				if k, err := s.KeepAliveOnce(s.ctx, r.ID); err != nil || k.TTL != 300 {
					t.Errorf("keep alive: %+v %v", k, err)
				}
				if l, err := s.TimeToLive(s.ctx, r.ID, clientv3.WithAttachedKeys()); err != nil || len(l.Keys) != 1 || string(l.Keys[0]) != key {
					t.Errorf("time to live: %+v %v", l, err)
				}
			}
			if _, err := s.Revoke(s.ctx, r.ID); err != nil {
				t.Errorf("revoke: %v", err)
			}
		})
	}
	wg.Wait()
	if n := s.get("stress", clientv3.WithPrefix()).Count; n != 0 {
		t.Errorf("%d keys are left of revoked leases", n)
	}
}

func leaseOfNobody(t *testing.T, s *session) {
	if _, err := s.Put(s.ctx, "nobody", "v", clientv3.WithLease(123456)); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.Errorf("put: %v", err)
	}
	if s.get("nobody").Count != 0 {
		t.Error("the refused put took effect")
	}
}

// leaseFailover: the next leader goes on with the lease, answers what its keys
// are, and ends it in its time.
func leaseFailover(t *testing.T, c *storetest.Cluster) {
	s := join(t, c)
	long := s.grant(300)
	s.put("long", "v", clientv3.WithLease(long))
	short := s.grant(2)
	w := s.Watch(s.ctx, "brief", clientv3.WithCreatedNotify())
	s.next(w)
	s.put("brief", "v", clientv3.WithLease(short))
	leader, target := c.Leader(), c.Follower()
	_, err := join(t, c, leader).MoveLeader(s.ctx, target.Store.Membership().SelfID())
	s.check("move leader", err)
	everywhere(t, c, func(t *testing.T, s *session) {
		r, err := s.TimeToLive(s.ctx, long, clientv3.WithAttachedKeys())
		s.check("time to live", err)
		if r.GrantedTTL != 300 || r.TTL <= 0 || len(r.Keys) != 1 {
			t.Errorf("after the change of leader: %+v", r)
		}
		if k, err := s.KeepAliveOnce(s.ctx, long); err != nil || k.TTL != 300 {
			t.Errorf("keep alive: %+v %v", k, err)
		}
	})
	if events := s.events(w, 2); events[1].Type != clientv3.EventTypeDelete {
		t.Errorf("events %v", events)
	}
	s.revoke(long)
	if s.get("long").Count != 0 {
		t.Error("the key of the revoked lease is still there")
	}
}

// TestLeasesSurviveARestart: what was granted, attached, detached and revoked is
// so after the only member has started again.
func TestLeasesSurviveARestart(t *testing.T) {
	t.Parallel()
	c := storetest.Start(t, 1, nil)
	s := join(t, c)
	held, revoked, detached, left, last := s.grant(300), s.grant(300), s.grant(300), s.grant(300), s.grant(300)
	negative, err := s.leases().LeaseGrant(s.ctx, &pb.LeaseGrantRequest{ID: -7, TTL: 300})
	s.check("grant", err)
	s.put("held", "v", clientv3.WithLease(held))
	s.put("revoked", "v", clientv3.WithLease(revoked))
	s.revoke(revoked)
	s.put("detached", "v", clientv3.WithLease(detached))
	s.put("detached", "v")
	s.put("moved", "v", clientv3.WithLease(left))
	s.put("moved", "v", clientv3.WithLease(last))
	s.put("negative", "v", clientv3.WithLease(clientv3.LeaseID(negative.ID)))

	c.Members[0].Stop()
	c.Members[0].Start()
	c.Leader()
	s = join(t, c)
	for key, want := range map[string]int64{"held": 1, "revoked": 0, "detached": 1, "moved": 1, "negative": 1} {
		if n := s.get(key).Count; n != want {
			t.Errorf("%s: %d keys after the restart, want %d", key, n, want)
		}
	}
	if _, err := s.Revoke(s.ctx, revoked); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.Errorf("a lease that was revoked is back: %v", err)
	}
	for _, step := range []struct {
		lease clientv3.LeaseID
		key   string
		want  int64
	}{{held, "held", 0}, {detached, "detached", 1}, {left, "moved", 1}, {last, "moved", 0}, {-7, "negative", 0}} {
		s.revoke(step.lease)
		if n := s.get(step.key).Count; n != step.want {
			t.Errorf("%s: %d keys after revoking its lease, want %d", step.key, n, step.want)
		}
	}
}

// TestLeaseCheckpoint: the remaining time of a lease outlives a change of leader;
// it would start from the beginning if it had never been committed.
func TestLeaseCheckpoint(t *testing.T) {
	t.Parallel()
	c := storetest.Start(t, 3, func(s *store.Config, a *etcdapi.Config) {
		steady(s, a)
		// etcd's lessor commits nothing of a lease's first second, nor ever if asked
		// to then.
		s.LeaseCheckpoint = 2 * time.Second
	})
	s := join(t, c)
	lease := s.grant(300)
	left := func() int64 {
		r, err := s.TimeToLive(s.ctx, lease)
		s.check("time to live", err)
		return r.TTL
	}
	// By then 296 s or less are committed, which a new leader extends by an election.
	c.Eventually("more than seven seconds are over", func() bool { return left() < 293 })
	target := c.Follower()
	_, err := join(t, c, c.Leader()).MoveLeader(s.ctx, target.Store.Membership().SelfID())
	s.check("move leader", err)
	c.Eventually("the follower leads", target.Store.IsLeader)
	if ttl := left(); ttl >= 299 || ttl <= 0 {
		t.Errorf("under the new leader the lease has %d s of 300 left, under the old one it had 292", ttl)
	}
}
