package clientcases_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"tripod.dev/tripod/hub/store/storetest"
)

func TestKV(t *testing.T) {
	t.Parallel()
	c := storetest.Start(t, 3, steady)
	for name, run := range map[string]func(*testing.T, *session){
		"ranges":                            kvRanges,
		"versions of a key":                 kvVersions,
		"what a put may leave as it is":     kvIgnores,
		"an empty value is a value":         kvEmptyValue,
		"deleted ranges":                    kvDeletes,
		"compaction":                        kvCompaction,
		"a cancelled call":                  kvCancelled,
		"many reads in flight":              kvInFlight,
		"requests that are refused":         kvRefused,
		"physical compaction is waited for": kvPhysicalCompaction,
	} {
		t.Run(name, func(t *testing.T) { everywhere(t, c, run) })
	}
}

func keysOf(r *clientv3.GetResponse) string {
	var keys []string
	for _, kv := range r.Kvs {
		keys = append(keys, string(kv.Key))
	}
	return strings.Join(keys, " ")
}

// kvRanges puts b a c d c under a prefix: created in the order b a c d, last
// modified in the order b a d c.
func kvRanges(t *testing.T, s *session) {
	s.delete("", clientv3.WithPrefix())
	base := s.revision()
	for i, key := range strings.Fields("b a c d c") {
		s.put(key, fmt.Sprint(9-i))
	}
	opts := func(o ...clientv3.OpOption) []clientv3.OpOption { return o }
	ascend, descend := clientv3.SortAscend, clientv3.SortDescend
	tests := map[string]struct {
		key   string
		opts  []clientv3.OpOption
		want  string
		count int64
		more  bool
	}{
		"one key":                    {"a", nil, "a", 1, false},
		"a key that is not there":    {"x", nil, "", 0, false},
		"all in the range":           {"a", opts(clientv3.WithRange("z")), "a b c d", 4, false},
		"the end is left out":        {"b", opts(clientv3.WithRange("d")), "b c", 2, false},
		"an empty range":             {"c", opts(clientv3.WithRange("c")), "", 0, false},
		"an end before the start":    {"d", opts(clientv3.WithRange("b")), "", 0, false},
		"from a key on":              {"b", opts(clientv3.WithFromKey()), "b c d", 3, false},
		"all keys":                   {"", opts(clientv3.WithPrefix()), "a b c d", 4, false},
		"from the smallest key":      {"", opts(clientv3.WithFromKey()), "a b c d", 4, false},
		"a prefix":                   {"c", opts(clientv3.WithPrefix()), "c", 1, false},
		"serializable":               {"a", opts(clientv3.WithRange("z"), clientv3.WithSerializable()), "a b c d", 4, false},
		"before the first put":       {"a", opts(clientv3.WithRange("z"), clientv3.WithRev(base)), "", 0, false},
		"after the second put":       {"a", opts(clientv3.WithRange("z"), clientv3.WithRev(base+2)), "a b", 2, false},
		"one of more":                {"a", opts(clientv3.WithRange("z"), clientv3.WithLimit(1)), "a", 4, true},
		"as many as there are":       {"a", opts(clientv3.WithRange("z"), clientv3.WithLimit(4)), "a b c d", 4, false},
		"fewer than the limit":       {"a", opts(clientv3.WithRange("z"), clientv3.WithLimit(5)), "a b c d", 4, false},
		"counted only":               {"a", opts(clientv3.WithRange("z"), clientv3.WithCountOnly()), "", 4, false},
		"by key, last first":         {"a", opts(clientv3.WithRange("z"), clientv3.WithLimit(1), clientv3.WithSort(clientv3.SortByKey, descend)), "d", 4, true},
		"by creation":                {"a", opts(clientv3.WithRange("z"), clientv3.WithSort(clientv3.SortByCreateRevision, ascend)), "b a c d", 4, false},
		"by creation, no order said": {"a", opts(clientv3.WithRange("z"), clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortNone)), "b a c d", 4, false},
		"by change, last first":      {"a", opts(clientv3.WithRange("z"), clientv3.WithLimit(2), clientv3.WithSort(clientv3.SortByModRevision, descend)), "c d", 4, true},
		"by version, most first":     {"a", opts(clientv3.WithRange("z"), clientv3.WithLimit(1), clientv3.WithSort(clientv3.SortByVersion, descend)), "c", 4, true},
		"by value":                   {"a", opts(clientv3.WithRange("z"), clientv3.WithSort(clientv3.SortByValue, ascend)), "c d a b", 4, false},
		"the first key":              {"", clientv3.WithFirstKey(), "a", 4, true},
		"the last key":               {"", clientv3.WithLastKey(), "d", 4, true},
		"the first created":          {"", clientv3.WithFirstCreate(), "b", 4, true},
		"the last changed":           {"", clientv3.WithLastRev(), "c", 4, true},
		"changed since":              {"", opts(clientv3.WithPrefix(), clientv3.WithMinModRev(base+4)), "c d", 4, false},
		"changed until":              {"", opts(clientv3.WithPrefix(), clientv3.WithMaxModRev(base+2)), "a b", 4, false},
		"changed between":            {"", opts(clientv3.WithPrefix(), clientv3.WithMinModRev(base+2), clientv3.WithMaxModRev(base+4)), "a d", 4, false},
		"created since":              {"", opts(clientv3.WithPrefix(), clientv3.WithMinCreateRev(base+3)), "c d", 4, false},
		"created until":              {"", opts(clientv3.WithPrefix(), clientv3.WithMaxCreateRev(base+1)), "b", 4, false},
		"created between":            {"", opts(clientv3.WithPrefix(), clientv3.WithMinCreateRev(base+2), clientv3.WithMaxCreateRev(base+3)), "a c", 4, false},
	}
	for name, test := range tests {
		r := s.get(test.key, test.opts...)
		if keysOf(r) != test.want || r.Count != test.count || r.More != test.more || r.Header.Revision != base+5 {
			t.Errorf("%s: keys %q, count %d, more %v, revision +%d; want %q, %d, %v, +5",
				name, keysOf(r), r.Count, r.More, r.Header.Revision-base, test.want, test.count, test.more)
		}
	}
	for _, kv := range s.get("a", clientv3.WithRange("z"), clientv3.WithKeysOnly()).Kvs {
		if len(kv.Value) != 0 || kv.ModRevision == 0 {
			t.Errorf("keys only gave %v", kv)
		}
	}
	if kv := s.get("c", clientv3.WithRev(base+3)).Kvs[0]; string(kv.Value) != "7" || kv.Version != 1 {
		t.Errorf("the old value of c is %v", kv)
	}
}

func kvVersions(t *testing.T, s *session) {
	s.delete("key")
	first := s.put("key", "1")
	second := s.put("key", "2", clientv3.WithPrevKV())
	if second.Header.Revision != first.Header.Revision+1 {
		t.Errorf("revisions %d and %d are not consecutive", first.Header.Revision, second.Header.Revision)
	}
	if first.PrevKv != nil || second.PrevKv == nil || string(second.PrevKv.Value) != "1" {
		t.Errorf("previous values %v and %v, want none and 1", first.PrevKv, second.PrevKv)
	}
	kv := s.get("key").Kvs[0]
	if kv.Version != 2 || kv.CreateRevision != first.Header.Revision || kv.ModRevision != second.Header.Revision || string(kv.Value) != "2" {
		t.Errorf("after two puts: %v", kv)
	}
	s.delete("key")
	again := s.put("key", "3", clientv3.WithPrevKV())
	if kv := s.get("key").Kvs[0]; kv.Version != 1 || kv.CreateRevision != again.Header.Revision || again.PrevKv != nil {
		t.Errorf("a deleted key that is put again: %v, previous %v", kv, again.PrevKv)
	}
}

func kvIgnores(t *testing.T, s *session) {
	one, two := s.grant(300), s.grant(300)
	s.put("key", "1", clientv3.WithLease(one))
	tests := []struct {
		name, value, wantValue string
		opts                   []clientv3.OpOption
		wantLease              clientv3.LeaseID
	}{
		{"the value stays", "", "1", []clientv3.OpOption{clientv3.WithIgnoreValue(), clientv3.WithLease(two)}, two},
		{"the lease stays", "2", "2", []clientv3.OpOption{clientv3.WithIgnoreLease()}, two},
		{"the value stays, the lease goes", "", "2", []clientv3.OpOption{clientv3.WithIgnoreValue()}, 0},
	}
	for i, test := range tests {
		s.put("key", test.value, test.opts...)
		kv := s.get("key").Kvs[0]
		if string(kv.Value) != test.wantValue || clientv3.LeaseID(kv.Lease) != test.wantLease || kv.Version <= int64(i+1) {
			t.Errorf("%s: %v, want value %s and lease %x", test.name, kv, test.wantValue, test.wantLease)
		}
	}
	s.delete("key")
}

func kvEmptyValue(t *testing.T, s *session) {
	s.put("key", "")
	r := s.get("key")
	if r.Count != 1 || len(r.Kvs[0].Value) != 0 {
		t.Errorf("got %v", r.Kvs)
	}
	s.delete("key")
}

func kvDeletes(t *testing.T, s *session) {
	tests := map[string]struct {
		key     string
		opts    []clientv3.OpOption
		deleted string
	}{
		"one key":                       {"a", nil, "a"},
		"a key that is not there":       {"x", nil, ""},
		"a range without its end":       {"a", []clientv3.OpOption{clientv3.WithRange("c")}, "a b"},
		"a range from its start":        {"b", []clientv3.OpOption{clientv3.WithRange("c/")}, "b c"},
		"a prefix":                      {"c", []clientv3.OpOption{clientv3.WithPrefix()}, "c c/a"},
		"from a key on":                 {"c", []clientv3.OpOption{clientv3.WithFromKey()}, "c c/a d"},
		"all":                           {"", []clientv3.OpOption{clientv3.WithPrefix()}, "a b c c/a d"},
		"an end that is the start":      {"b", []clientv3.OpOption{clientv3.WithRange("b")}, ""},
		"an end that is before a start": {"c", []clientv3.OpOption{clientv3.WithRange("a")}, ""},
	}
	for name, test := range tests {
		s.delete("", clientv3.WithPrefix())
		for _, key := range strings.Fields("a b c c/a d") {
			s.put(key, "value of "+key)
		}
		before := s.revision()
		r := s.delete(test.key, append([]clientv3.OpOption{clientv3.WithPrevKV()}, test.opts...)...)
		var previous []string
		for _, kv := range r.PrevKvs {
			if string(kv.Value) != "value of "+string(kv.Key) {
				t.Errorf("%s: previous %v", name, kv)
			}
			previous = append(previous, string(kv.Key))
		}
		want := strings.Fields(test.deleted)
		step := int64(min(len(want), 1))
		if diff := cmp.Diff(want, previous); diff != "" && len(want)+len(previous) > 0 {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if r.Deleted != int64(len(want)) || r.Header.Revision != before+step {
			t.Errorf("%s: %d deleted at revision +%d, want %d at +%d", name, r.Deleted, r.Header.Revision-before, len(want), step)
		}
		if left := s.get("", clientv3.WithPrefix(), clientv3.WithCountOnly()).Count; left != 5-r.Deleted {
			t.Errorf("%s: %d keys left of 5 with %d deleted", name, left, r.Deleted)
		}
	}
	s.put("a", "1")
	if r := s.delete("a"); len(r.PrevKvs) != 0 {
		t.Errorf("previous values that nobody asked for: %v", r.PrevKvs)
	}
}

func kvCompaction(t *testing.T, s *session) {
	first := s.put("key", "1").Header.Revision
	s.put("key", "2")
	third := s.put("key", "3").Header.Revision
	if _, err := s.Compact(s.ctx, third+100); !errors.Is(err, rpctypes.ErrFutureRev) {
		t.Errorf("compaction of the future: %v", err)
	}
	r, err := s.Compact(s.ctx, third)
	s.check("compact", err)
	if r.Header.Revision != third {
		t.Errorf("compaction answered revision %d, want %d: it makes none", r.Header.Revision, third)
	}
	for _, revision := range []int64{third, first, 0} {
		if _, err := s.Compact(s.ctx, revision); !errors.Is(err, rpctypes.ErrCompacted) {
			t.Errorf("compaction of %d, which is compacted: %v", revision, err)
		}
	}
	if _, err := s.Get(s.ctx, "key", clientv3.WithRev(third-1)); !errors.Is(err, rpctypes.ErrCompacted) {
		t.Errorf("get of a compacted revision: %v", err)
	}
	if kv := s.get("key", clientv3.WithRev(third)).Kvs[0]; string(kv.Value) != "3" {
		t.Errorf("the compacted revision itself is still read: %v", kv)
	}
	if _, err := s.Get(s.ctx, "key", clientv3.WithRev(third+100)); !errors.Is(err, rpctypes.ErrFutureRev) {
		t.Errorf("get of the future: %v", err)
	}
}

// kvPhysicalCompaction: after a physical compaction the member that was asked
// has dropped the old revisions from its file, whoever leads.
func kvPhysicalCompaction(t *testing.T, s *session) {
	// etcd removes a thousand revisions at a time and pauses in between.
	for i := range 50 {
		var puts []clientv3.Op
		for j := range 100 {
			puts = append(puts, clientv3.OpPut(fmt.Sprintf("key%d", j), fmt.Sprint(i)))
		}
		s.commit(s.Txn(s.ctx).Then(puts...))
	}
	revision := s.put("key", "last").Header.Revision
	_, err := s.Compact(s.ctx, revision, clientv3.WithCompactPhysical())
	s.check("compact", err)
	if finished := s.database().finishedCompaction(); finished != revision {
		t.Errorf("the file of the member has finished the compaction of %d, want %d", finished, revision)
	}
	s.delete("key", clientv3.WithPrefix())
}

func kvCancelled(t *testing.T, s *session) {
	s.put("key", "1")
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	if _, err := s.Get(ctx, "key"); !errors.Is(err, context.Canceled) {
		t.Errorf("get: %v", err)
	}
	if _, err := s.Put(ctx, "key", "2"); !errors.Is(err, context.Canceled) {
		t.Errorf("put: %v", err)
	}
	if kv := s.get("key").Kvs[0]; string(kv.Value) != "1" {
		t.Errorf("a call that was cancelled before it was made had an effect: %v", kv)
	}
}

func kvInFlight(t *testing.T, s *session) {
	s.put("key", "1")
	ctx, cancel := context.WithCancel(s.ctx)
	var wg sync.WaitGroup
	answered := make(chan struct{}, 50)
	for range cap(answered) {
		wg.Go(func() {
			for ctx.Err() == nil {
				_, err := s.Get(ctx, "key", clientv3.WithSerializable())
				if err != nil && !errors.Is(err, context.Canceled) {
					t.Errorf("get: %v", err)
					return
				}
				select {
				case answered <- struct{}{}:
				default:
				}
			}
		})
	}
	<-answered
	cancel()
	wg.Wait()
	s.get("key")
}

// TestClosedClient: the client itself repeats what failed for seconds.
func TestClosedClient(t *testing.T) {
	t.Parallel()
	s := join(t, storetest.Start(t, 1, nil))
	lease := s.grant(5)
	s.check("close", s.Close())
	var wg sync.WaitGroup
	for name, call := range map[string]func() error{
		"get":    func() error { _, err := s.Get(s.ctx, "key"); return err },
		"put":    func() error { _, err := s.Put(s.ctx, "key", "1"); return err },
		"delete": func() error { _, err := s.Delete(s.ctx, "key"); return err },
		"txn":    func() error { _, err := s.Txn(s.ctx).Then(clientv3.OpGet("key")).Commit(); return err },
		"grant":  func() error { _, err := s.Grant(s.ctx, 5); return err },
		"revoke": func() error { _, err := s.Revoke(s.ctx, lease); return err },
		"leases": func() error { _, err := s.Leases(s.ctx); return err },
	} {
		wg.Go(func() {
			if err := call(); err == nil || !clientv3.IsConnCanceled(err) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	wg.Wait()
	t.Run("keep alive", func(t *testing.T) {
		_, err := s.KeepAlive(s.ctx, lease)
		var halted clientv3.ErrKeepAliveHalted
		if !errors.As(err, &halted) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("watch", func(t *testing.T) { s.closed(s.Watch(s.ctx, "key")) })
}

func putRequest(key string) *pb.PutRequest {
	return &pb.PutRequest{Key: []byte(key), Value: []byte("v")}
}

// kvRefused: etcd's codes and messages, and no effect.
func kvRefused(t *testing.T, s *session) {
	s.delete("absent")
	s.put("key", "1")
	compacted := s.put("key", "2").Header.Revision
	if _, err := s.Compact(s.ctx, compacted); err != nil {
		t.Fatal(err)
	}
	kv, before := s.kv(), s.revision()
	get := func(r *pb.RangeRequest) func() error {
		return func() error { _, err := kv.Range(s.ctx, r); return err }
	}
	put := func(r *pb.PutRequest) func() error {
		return func() error { _, err := kv.Put(s.ctx, r); return err }
	}
	key := []byte("key")
	for name, test := range map[string]struct {
		call func() error
		want error
	}{
		"get without a key":                  {get(&pb.RangeRequest{}), rpctypes.ErrGRPCEmptyKey},
		"get in an unknown order":            {get(&pb.RangeRequest{Key: key, SortOrder: 9}), rpctypes.ErrGRPCInvalidSortOption},
		"get by an unknown target":           {get(&pb.RangeRequest{Key: key, SortTarget: 9}), rpctypes.ErrGRPCInvalidSortOption},
		"get of the future":                  {get(&pb.RangeRequest{Key: key, Revision: before + 1}), rpctypes.ErrGRPCFutureRev},
		"get of a compacted revision":        {get(&pb.RangeRequest{Key: key, Revision: compacted - 1}), rpctypes.ErrGRPCCompacted},
		"put without a key":                  {put(&pb.PutRequest{}), rpctypes.ErrGRPCEmptyKey},
		"put with a value to be ignored":     {put(&pb.PutRequest{Key: key, Value: key, IgnoreValue: true}), rpctypes.ErrGRPCValueProvided},
		"put with a lease to be ignored":     {put(&pb.PutRequest{Key: key, Lease: 7, IgnoreLease: true}), rpctypes.ErrGRPCLeaseProvided},
		"put with an unknown lease":          {put(&pb.PutRequest{Key: key, Lease: 123456}), rpctypes.ErrGRPCLeaseNotFound},
		"put that keeps the value of no key": {put(&pb.PutRequest{Key: []byte("absent"), IgnoreValue: true}), rpctypes.ErrGRPCKeyNotFound},
		"put that keeps the lease of no key": {put(&pb.PutRequest{Key: []byte("absent"), IgnoreLease: true}), rpctypes.ErrGRPCKeyNotFound},
		"put over the limit":                 {put(&pb.PutRequest{Key: key, Value: make([]byte, 1536*1024)}), rpctypes.ErrGRPCRequestTooLarge},
		"delete without a key":               {func() error { _, err := kv.DeleteRange(s.ctx, &pb.DeleteRangeRequest{}); return err }, rpctypes.ErrGRPCEmptyKey},
		"delete over the limit": {func() error {
			_, err := kv.DeleteRange(s.ctx, &pb.DeleteRangeRequest{Key: make([]byte, 1536*1024)})
			return err
		}, rpctypes.ErrGRPCRequestTooLarge},
		"compaction of the future": {func() error { _, err := kv.Compact(s.ctx, &pb.CompactionRequest{Revision: before + 1}); return err }, rpctypes.ErrGRPCFutureRev},
		"compaction of what was":   {func() error { _, err := kv.Compact(s.ctx, &pb.CompactionRequest{Revision: compacted}); return err }, rpctypes.ErrGRPCCompacted},
		"physical compaction of what was": {func() error {
			_, err := kv.Compact(s.ctx, &pb.CompactionRequest{Revision: compacted, Physical: true})
			return err
		}, rpctypes.ErrGRPCCompacted},
		"put that keeps value and lease of none": {put(&pb.PutRequest{Key: []byte("absent"), IgnoreLease: true, IgnoreValue: true}), rpctypes.ErrGRPCKeyNotFound},
	} {
		if err := test.call(); !isStatus(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	if after := s.revision(); after != before {
		t.Errorf("refused requests moved the revision from %d to %d", before, after)
	}
}
