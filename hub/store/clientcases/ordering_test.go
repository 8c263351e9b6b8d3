package clientcases_test

import (
	"errors"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/ordering"

	"tripod.dev/tripod/hub/store/storetest"
)

// TestOrdering: a client that was told a newer revision finds out when a member
// that has been left behind answers, goes to another one if it may, and goes on
// with the first when that has caught up.
func TestOrdering(t *testing.T) {
	t.Parallel()
	c := storetest.Start(t, 3, steady)
	behind := c.Follower()
	others, names := except(c, behind)
	writer := join(t, c, others...)
	writer.put("key", "1")
	c.Converged()
	c.Network.Cut([]string{behind.Name}, names)
	last := writer.put("key", "2").Header.Revision
	for _, m := range others {
		join(t, c, m).get("key") // has applied it
	}

	s := join(t, c)
	answering(t, c, s, c.Members...)
	violated := 0
	next := ordering.NewOrderViolationSwitchEndpointClosure(s.Client)
	switching := ordering.NewKV(s.KV, func(op clientv3.Op, resp clientv3.OpResponse, revision int64) error {
		violated++
		return next(op, resp, revision)
	})
	violation := errors.New("a member answered an older revision")
	detecting := ordering.NewKV(s.KV, func(clientv3.Op, clientv3.OpResponse, int64) error { return violation })
	for _, kv := range []clientv3.KV{switching, detecting} {
		c.Eventually("the client is told of the newer revision", func() bool {
			r, err := kv.Get(s.ctx, "key", clientv3.WithSerializable())
			return err == nil && r.Header.Revision == last
		})
	}

	orderKept(t, s, switching, last)
	if violated == 0 {
		t.Error("the member that is behind was not asked, so nothing was switched")
	}
	s.SetEndpoints(endpointsOf(behind)...)
	answering(t, c, s, behind)
	orderViolated(t, s, detecting, violation)
	if _, err := switching.Get(s.ctx, "key", clientv3.WithSerializable()); !errors.Is(err, ordering.ErrNoGreaterRev) {
		t.Errorf("with nowhere to go: %v", err)
	}
	c.Network.Heal()
	c.Eventually("the member has caught up", func() bool {
		r, err := detecting.Get(s.ctx, "key", clientv3.WithSerializable())
		return err == nil && r.Header.Revision >= last
	})
}

// orderKept reads as often as it takes to ask every member in turn: no answer is
// older than the newest one.
func orderKept(t *testing.T, s *session, kv clientv3.KV, last int64) {
	t.Helper()
	for i := range 4 {
		r, err := kv.Get(s.ctx, "key", clientv3.WithSerializable())
		if err != nil || r.Header.Revision != last || string(r.Kvs[0].Value) != "2" {
			t.Errorf("get %d: %v %v, want revision %d", i, r, err, last)
		}
		txn, err := kv.Txn(s.ctx).Then(clientv3.OpGet("key", clientv3.WithSerializable())).Commit()
		if err != nil || txn.Header.Revision != last {
			t.Errorf("transaction %d: %v %v, want revision %d", i, txn, err, last)
		}
	}
}

func orderViolated(t *testing.T, s *session, kv clientv3.KV, violation error) {
	t.Helper()
	if _, err := kv.Get(s.ctx, "key", clientv3.WithSerializable()); !errors.Is(err, violation) {
		t.Errorf("get: %v", err)
	}
	txn := kv.Txn(s.ctx).If(clientv3.Compare(clientv3.Version("key"), ">", 0)).Then(clientv3.OpGet("key", clientv3.WithSerializable()))
	if _, err := txn.Commit(); !errors.Is(err, violation) {
		t.Errorf("transaction: %v", err)
	}
}

func endpointsOf(members ...*storetest.Member) (out []string) {
	for _, m := range members {
		out = append(out, "https://"+m.Address.PeerAddress)
	}
	return out
}

// answering waits until the client asks exactly these members, in turn. It takes
// its time to connect to all, and to leave others.
func answering(t *testing.T, c *storetest.Cluster, s *session, members ...*storetest.Member) {
	t.Helper()
	c.Eventually("the client asks each member in turn", func() bool {
		answers := map[uint64]int{}
		for range 3 * len(members) {
			r, err := s.Get(s.ctx, "key", clientv3.WithSerializable())
			if err != nil {
				return false
			}
			answers[r.Header.MemberId]++
		}
		for _, m := range members {
			if answers[m.Store.Membership().SelfID()] != 3 {
				return false
			}
		}
		return true
	})
}
