package clientcases_test

import (
	"context"
	"errors"
	"flag"
	"net"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/etcdapi"
	"tripod.dev/tripod/hub/store/storetest"
)

func TestMain(m *testing.M) {
	// The tests mostly wait: for elections, leases and disks.
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// steady gives members more time than a LAN before they elect, so that a machine
// that is short of CPU does not change leaders.
func steady(s *store.Config, _ *etcdapi.Config) {
	s.Timing = store.WAN()
	s.Timing.Commit = store.LAN().Commit
}

// except gives the members of a cluster but one, and their names.
func except(c *storetest.Cluster, one *storetest.Member) (members []*storetest.Member, names []string) {
	for _, m := range c.Members {
		if m != one {
			members, names = append(members, m), append(names, m.Name)
		}
	}
	return members, names
}

// session is one client in one test: its calls fail the test and end with it.
type session struct {
	*clientv3.Client
	t   *testing.T
	ctx context.Context
	// member is the only one that the client talks to; nil if to any.
	member *storetest.Member
}

func patience(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*storetest.Patience)
	t.Cleanup(cancel)
	return ctx
}

// join makes a session on the first of members, or on any of the cluster.
func join(t *testing.T, c *storetest.Cluster, members ...*storetest.Member) *session {
	t.Helper()
	s := &session{t: t, ctx: patience(t), Client: c.Client(members...)}
	if len(members) == 1 {
		s.member = members[0]
	}
	return s
}

// everywhere runs a case on the leader and on a follower: writes and
// confirmations take another way there, and nobody should be able to tell.
func everywhere(t *testing.T, c *storetest.Cluster, run func(t *testing.T, s *session)) {
	t.Helper()
	for name, m := range map[string]*storetest.Member{"leader": c.Leader(), "follower": c.Follower()} {
		t.Run(name, func(t *testing.T) { run(t, join(t, c, m)) })
	}
}

func (s *session) check(what string, err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
}

func (s *session) put(key, value string, opts ...clientv3.OpOption) *clientv3.PutResponse {
	s.t.Helper()
	r, err := s.Put(s.ctx, key, value, opts...)
	s.check("put "+key, err)
	return r
}

func (s *session) get(key string, opts ...clientv3.OpOption) *clientv3.GetResponse {
	s.t.Helper()
	r, err := s.Get(s.ctx, key, opts...)
	s.check("get "+key, err)
	return r
}

func (s *session) delete(key string, opts ...clientv3.OpOption) *clientv3.DeleteResponse {
	s.t.Helper()
	r, err := s.Delete(s.ctx, key, opts...)
	s.check("delete "+key, err)
	return r
}

func (s *session) grant(ttl int64) clientv3.LeaseID {
	s.t.Helper()
	r, err := s.Grant(s.ctx, ttl)
	s.check("grant", err)
	return r.ID
}

func (s *session) revoke(id clientv3.LeaseID) {
	s.t.Helper()
	_, err := s.Revoke(s.ctx, id)
	s.check("revoke", err)
}

func (s *session) commit(txn clientv3.Txn) *clientv3.TxnResponse {
	s.t.Helper()
	r, err := txn.Commit()
	s.check("transaction", err)
	return r
}

// revision is the newest one.
func (s *session) revision() int64 {
	s.t.Helper()
	return s.get("any").Header.Revision
}

// next takes one response of a watch that must be alive.
func (s *session) next(w clientv3.WatchChan) clientv3.WatchResponse {
	s.t.Helper()
	r := s.last(w)
	if r.Err() != nil {
		s.t.Fatalf("watch failed: %v", r.Err())
	}
	return r
}

// last takes one response, whatever it says.
func (s *session) last(w clientv3.WatchChan) clientv3.WatchResponse {
	s.t.Helper()
	select {
	case r, ok := <-w:
		if !ok {
			s.t.Fatal("watch closed")
		}
		return r
	case <-s.ctx.Done():
		s.t.Fatal("nothing came from the watch")
	}
	return clientv3.WatchResponse{}
}

// closed waits until a watch's channel is closed; responses before are dropped.
func (s *session) closed(w clientv3.WatchChan) {
	s.t.Helper()
	for {
		select {
		case _, ok := <-w:
			if !ok {
				return
			}
		case <-s.ctx.Done():
			s.t.Fatal("the channel of the watch is not closed")
		}
	}
}

// events takes n events of a watch, over any number of responses.
func (s *session) events(w clientv3.WatchChan, n int) []*clientv3.Event {
	s.t.Helper()
	var out []*clientv3.Event
	for len(out) < n {
		out = append(out, s.next(w).Events...)
	}
	return out
}

// The generated clients send what clientv3 would refuse or rewrite itself.

func (s *session) kv() pb.KVClient        { return pb.NewKVClient(s.ActiveConnection()) }
func (s *session) leases() pb.LeaseClient { return pb.NewLeaseClient(s.ActiveConnection()) }
func (s *session) watches() pb.WatchClient {
	return pb.NewWatchClient(s.ActiveConnection())
}

// isStatus tells whether err, from a generated client, is the gRPC error want in
// code and message.
func isStatus(err, want error) bool {
	if err == nil || want == nil {
		return err == want //nolint:errorlint // both or one are nil
	}
	g, w := status.Convert(err), status.Convert(want)
	return g.Code() == w.Code() && g.Message() == w.Message()
}

// isUnavailable tells whether etcd's clients take err for "no quorum now": the
// gRPC code, or their own wait that ran out.
func isUnavailable(err error) bool {
	for _, e := range []error{
		rpctypes.ErrNoLeader, rpctypes.ErrTimeout, rpctypes.ErrTimeoutDueToLeaderFail, rpctypes.ErrTimeoutDueToConnectionLost,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// wire is the network between one client and its members.
type wire struct {
	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]struct{}
}

// wired makes a session whose network the test can cut.
func wired(t *testing.T, c *storetest.Cluster, members ...*storetest.Member) (*session, *wire) {
	t.Helper()
	w := &wire{conns: map[net.Conn]struct{}{}}
	cfg := clientConfig(t, c, members...)
	cfg.DialOptions = append(cfg.DialOptions, grpc.WithContextDialer(w.dial))
	client, err := clientv3.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return &session{t: t, ctx: patience(t), Client: client}, w
}

func clientConfig(t *testing.T, c *storetest.Cluster, members ...*storetest.Member) clientv3.Config {
	t.Helper()
	if len(members) == 0 {
		members = c.Members
	}
	cfg := clientv3.Config{
		TLS: c.CA.Identity(t, "tripod:admin", etcdapi.AdminsOrganization), DialTimeout: 5 * time.Second, Logger: zap.NewNop(),
	}
	for _, m := range members {
		cfg.Endpoints = append(cfg.Endpoints, "https://"+m.Address.PeerAddress)
	}
	return cfg
}

func (w *wire) dial(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut {
		_ = conn.Close()
		return nil, errors.New("the test has cut the network")
	}
	w.conns[conn] = struct{}{}
	return conn, nil
}

// drop closes all connections; the client may dial again.
func (w *wire) drop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for conn := range w.conns {
		_ = conn.Close()
	}
	clear(w.conns)
}

// set cuts the network, or mends it.
func (w *wire) set(cut bool) {
	w.mu.Lock()
	w.cut = cut
	w.mu.Unlock()
	if cut {
		w.drop()
	}
}
