package clientcases_test

import (
	"fmt"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"tripod.dev/tripod/hub/store/storetest"
)

func TestTxn(t *testing.T) {
	t.Parallel()
	c := storetest.Start(t, 3, steady)
	for name, run := range map[string]func(*testing.T, *session){
		"comparisons":                                   txnCompares,
		"comparisons of ranges":                         txnComparesRanges,
		"revisions":                                     txnRevisions,
		"operations see those before them":              txnSequence,
		"the path through nested transactions":          txnNestedPath,
		"nested transactions of the client":             txnNested,
		"a reading transaction agrees with its header":  txnHeader,
		"transactions that are refused":                 txnRefused,
		"a failed check leaves nothing of the branches": txnAtomic,
	} {
		t.Run(name, func(t *testing.T) { everywhere(t, c, run) })
	}
}

func txnCompares(t *testing.T, s *session) {
	s.delete("", clientv3.WithPrefix())
	lease := s.grant(300)
	created := s.put("key", "a").Header.Revision
	changed := s.put("key", "m", clientv3.WithLease(lease)).Header.Revision
	defer s.revoke(lease)
	// Each target of key is compared with what it is, one less and one more.
	targets := map[string]struct {
		cmp             clientv3.Cmp
		less, is, above any
	}{
		"value":           {clientv3.Value("key"), "l", "m", "n"},
		"version":         {clientv3.Version("key"), 1, 2, 3},
		"create revision": {clientv3.CreateRevision("key"), created - 1, created, created + 1},
		"mod revision":    {clientv3.ModRevision("key"), changed - 1, changed, changed + 1},
		"lease":           {clientv3.LeaseValue("key"), lease - 1, lease, lease + 1},
		"absent version":  {clientv3.Version("absent"), -1, 0, 1},
		"absent create":   {clientv3.CreateRevision("absent"), int64(-1), int64(0), int64(1)},
		"absent mod":      {clientv3.ModRevision("absent"), int64(-1), int64(0), int64(1)},
	}
	for name, target := range targets {
		for result, want := range map[string][3]bool{
			"=": {false, true, false}, "!=": {true, false, true}, ">": {true, false, false}, "<": {false, false, true},
		} {
			for i, v := range []any{target.less, target.is, target.above} {
				r := s.commit(s.Txn(s.ctx).If(clientv3.Compare(target.cmp, result, v)))
				if r.Succeeded != want[i] {
					t.Errorf("%s %s %v: %v", name, result, v, r.Succeeded)
				}
			}
		}
	}
	for _, result := range []string{"=", "!=", "<", ">"} {
		if s.commit(s.Txn(s.ctx).If(clientv3.Compare(clientv3.Value("absent"), result, ""))).Succeeded {
			t.Errorf("the value of a key that is not there compares %s", result)
		}
	}
	two := s.Txn(s.ctx).If(clientv3.Compare(clientv3.Version("key"), "=", 2), clientv3.Compare(clientv3.Version("absent"), ">", 0))
	if s.commit(two).Succeeded {
		t.Error("one of two comparisons was enough")
	}
	if !s.commit(s.Txn(s.ctx)).Succeeded {
		t.Error("a transaction without comparisons took the other branch")
	}
}

func txnComparesRanges(t *testing.T, s *session) {
	s.delete("", clientv3.WithPrefix())
	base := s.revision()
	for _, key := range []string{"/a/1", "/a/2", "/a/3", "/f/4"} {
		s.put(key, "x")
	}
	tests := map[string]struct {
		cmp  clientv3.Cmp
		want bool
	}{
		"all from a key on are old enough":   {clientv3.Compare(clientv3.CreateRevision("/a/"), "<", base+5).WithRange("\x00"), true},
		"one from a key on is not":           {clientv3.Compare(clientv3.CreateRevision("/a/"), "<", base+4).WithRange("\x00"), false},
		"all of a prefix are old enough":     {clientv3.Compare(clientv3.CreateRevision("/a/"), "<", base+4).WithPrefix(), true},
		"one of a prefix is not":             {clientv3.Compare(clientv3.CreateRevision("/a/"), "<", base+3).WithPrefix(), false},
		"all have the value":                 {clientv3.Compare(clientv3.Value("/"), "=", "x").WithPrefix(), true},
		"no value where there is no key":     {clientv3.Compare(clientv3.Value("/b/"), "=", "x").WithPrefix(), false},
		"version 0 where there is no key":    {clientv3.Compare(clientv3.Version("/b/"), "=", 0).WithPrefix(), true},
		"none has a lease":                   {clientv3.Compare(clientv3.LeaseValue("/a/"), "=", 0).WithPrefix(), true},
		"not all have a lease":               {clientv3.Compare(clientv3.LeaseValue("/a/"), ">", 0).WithPrefix(), false},
		"the end of a range is not compared": {clientv3.Compare(clientv3.CreateRevision("/a/1"), "<", base+3).WithRange("/a/3"), true},
	}
	for name, test := range tests {
		if got := s.commit(s.Txn(s.ctx).If(test.cmp)).Succeeded; got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func txnRevisions(t *testing.T, s *session) {
	s.delete("", clientv3.WithPrefix())
	get, put, del := clientv3.OpGet("key"), clientv3.OpPut("key", "v"), clientv3.OpDelete("key")
	tests := []struct {
		name string
		ops  []clientv3.Op
		step int64
	}{
		{"nothing", nil, 0},
		{"a get", []clientv3.Op{get}, 0},
		{"a delete of nothing", []clientv3.Op{del}, 0},
		{"a put", []clientv3.Op{put}, 1},
		{"two puts", []clientv3.Op{put, clientv3.OpPut("other", "v")}, 1},
		{"a delete", []clientv3.Op{del}, 1},
		{"a nested put", []clientv3.Op{clientv3.OpTxn(nil, []clientv3.Op{put}, nil)}, 1},
		{"nested gets", []clientv3.Op{clientv3.OpTxn(nil, []clientv3.Op{get, get}, nil)}, 0},
	}
	for _, test := range tests {
		before := s.revision()
		r := s.commit(s.Txn(s.ctx).Then(test.ops...))
		if step := r.Header.Revision - before; step != test.step {
			t.Errorf("%s answered revision +%d, want +%d", test.name, step, test.step)
		}
		if step := s.revision() - before; step != test.step {
			t.Errorf("%s moved the revision by %d, want %d", test.name, step, test.step)
		}
	}
	r := s.commit(s.Txn(s.ctx).Then(clientv3.OpPut("a", "v"), clientv3.OpPut("b", "v")))
	for _, key := range []string{"a", "b"} {
		if kv := s.get(key).Kvs[0]; kv.ModRevision != r.Header.Revision {
			t.Errorf("%s was changed at %d, its transaction is %d", key, kv.ModRevision, r.Header.Revision)
		}
	}
}

func txnSequence(t *testing.T, s *session) {
	s.delete("", clientv3.WithPrefix())
	r := s.commit(s.Txn(s.ctx).Then(
		clientv3.OpGet("key"), clientv3.OpPut("key", "1", clientv3.WithPrevKV()), clientv3.OpGet("key"),
		clientv3.OpDelete("other"), clientv3.OpDelete("ke", clientv3.WithRange("kex")), clientv3.OpGet("", clientv3.WithPrefix()),
	))
	before, put, after := r.Responses[0].GetResponseRange(), r.Responses[1].GetResponsePut(), r.Responses[2].GetResponseRange()
	if before.Count != 0 || put.PrevKv != nil || after.Count != 1 || string(after.Kvs[0].Value) != "1" {
		t.Errorf("before %v, put %v, after %v", before, put, after)
	}
	if d := r.Responses[4].GetResponseDeleteRange(); d.Deleted != 0 {
		t.Errorf("a range beside the key deleted %v", d)
	}
	// A branch of reads beside one of writes is written to the log all the same.
	r = s.commit(s.Txn(s.ctx).If(clientv3.Compare(clientv3.Version("key"), "=", 0)).Then(clientv3.OpDelete("key")).Else(clientv3.OpGet("key")))
	if r.Succeeded || r.Responses[0].GetResponseRange().Count != 1 {
		t.Errorf("the other branch answered %v", r)
	}
}

func txnNestedPath(t *testing.T, s *session) {
	s.delete("key")
	// Every path of four turns, as bits.
	for path := range 16 {
		inner := clientv3.OpGet("key")
		for turn := 3; turn >= 0; turn-- {
			version := path >> turn & 1
			op := []clientv3.Op{inner}
			cmp := []clientv3.Cmp{clientv3.Compare(clientv3.Version("key"), "=", version)}
			// Version 0 is what the missing key has, so bit 0 takes the first branch.
			if version == 0 {
				inner = clientv3.OpTxn(cmp, op, nil)
			} else {
				inner = clientv3.OpTxn(cmp, nil, op)
			}
		}
		r, err := s.Do(s.ctx, inner)
		s.check("nested", err)
		level := (*pb.TxnResponse)(r.Txn())
		for turn := range 4 {
			if level.Succeeded != (path>>turn&1 == 0) || len(level.Responses) != 1 {
				t.Fatalf("path %04b: turn %d went another way: %v", path, turn, r.Txn())
			}
			level = level.Responses[0].GetResponseTxn()
		}
	}
}

func txnNested(t *testing.T, s *session) {
	s.delete("", clientv3.WithPrefix())
	s.put("foo", "bar")
	// The inner comparison is made before the outer operations take effect, as in
	// etcd: the path is chosen first.
	r := s.commit(s.Txn(s.ctx).If(clientv3.Compare(clientv3.Value("foo"), "=", "bar")).Then(
		clientv3.OpPut("foo", "baz"),
		clientv3.OpTxn([]clientv3.Cmp{clientv3.Compare(clientv3.Value("foo"), "=", "bar")}, []clientv3.Op{clientv3.OpPut("inner", "then")}, []clientv3.Op{clientv3.OpPut("inner", "else")}),
	))
	if !r.Succeeded || !r.Responses[1].GetResponseTxn().Succeeded {
		t.Errorf("answer %v", r)
	}
	for key, want := range map[string]string{"foo": "baz", "inner": "then"} {
		if kv := s.get(key).Kvs; len(kv) != 1 || string(kv[0].Value) != want || kv[0].ModRevision != r.Header.Revision {
			t.Errorf("%s is %v, want %s at %d", key, kv, want, r.Header.Revision)
		}
	}
}

// txnHeader: a reading transaction beside a put tells, with its header, on which
// side of it it was.
func txnHeader(t *testing.T, s *session) {
	s.delete("key")
	for i := range 10 {
		put := make(chan int64, 1)
		go func() {
			r, err := s.Put(s.ctx, "key", "v")
			if err != nil {
				t.Errorf("put: %v", err)
				put <- 0
				return
			}
			put <- r.Header.Revision
		}()
		r := s.commit(s.Txn(s.ctx).If(clientv3.Compare(clientv3.Version("key"), "=", i)).Then(clientv3.OpGet("key")))
		revision := <-put
		if before := r.Header.Revision < revision; before != r.Succeeded {
			t.Errorf("put %d at revision %d, transaction at %d found %d versions: %v", i, revision, r.Header.Revision, i, r.Succeeded)
		}
	}
}

func requestPut(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: putRequest(key)}}
}

func requestTxn(then ...*pb.RequestOp) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Success: then}}}
}

func requestDelete(key, end string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end)}}}
}

func requestRange(key string, revision int64) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(key), Revision: revision}}}
}

// distinct gives n operations on keys of their own.
func distinct(n int, op func(key string) *pb.RequestOp) []*pb.RequestOp {
	var out []*pb.RequestOp
	for i := range n {
		out = append(out, op(fmt.Sprintf("distinct%d", i)))
	}
	return out
}

func txnRefused(t *testing.T, s *session) {
	s.delete("", clientv3.WithPrefix())
	before := s.revision()
	compare := func(n int, key string) (out []*pb.Compare) {
		for range n {
			out = append(out, &pb.Compare{Key: []byte(key)})
		}
		return out
	}
	nested := func(key string) *pb.RequestOp { return requestTxn(requestPut(key)) }
	ignored := requestPut("absent")
	ignored.GetRequestPut().IgnoreLease = true
	leased := requestPut("key")
	leased.GetRequestPut().Lease = 123456
	order := requestRange("key", 0)
	order.GetRequestRange().SortOrder = 9
	then := func(ops ...*pb.RequestOp) *pb.TxnRequest { return &pb.TxnRequest{Success: ops} }
	for name, test := range map[string]struct {
		txn  *pb.TxnRequest
		want error
	}{
		"129 comparisons":                   {&pb.TxnRequest{Compare: compare(129, "key")}, rpctypes.ErrGRPCTooManyOps},
		"129 operations":                    {then(distinct(129, requestPut)...), rpctypes.ErrGRPCTooManyOps},
		"129 other operations":              {&pb.TxnRequest{Failure: distinct(129, requestPut)}, rpctypes.ErrGRPCTooManyOps},
		"129 nested ones":                   {then(distinct(129, nested)...), rpctypes.ErrGRPCTooManyOps},
		"128 with one nested in each":       {then(distinct(128, nested)...), rpctypes.ErrGRPCTooManyOps},
		"a key put twice":                   {then(requestPut("a"), requestPut("a")), rpctypes.ErrGRPCDuplicateKey},
		"a key put twice in the other":      {&pb.TxnRequest{Failure: []*pb.RequestOp{requestPut("a"), requestPut("a")}}, rpctypes.ErrGRPCDuplicateKey},
		"a key put again inside":            {then(requestPut("a"), requestTxn(requestPut("a"))), rpctypes.ErrGRPCDuplicateKey},
		"a key put in two inner ones":       {then(requestTxn(requestPut("a")), requestTxn(requestPut("a"))), rpctypes.ErrGRPCDuplicateKey},
		"a put in a deleted range":          {then(requestPut("b"), requestDelete("a", "c")), rpctypes.ErrGRPCDuplicateKey},
		"an inner put in a deleted range":   {then(requestTxn(requestPut("b")), requestDelete("a", "c")), rpctypes.ErrGRPCDuplicateKey},
		"a put in a range deleted inside":   {then(requestPut("b"), requestTxn(requestDelete("a", "c"))), rpctypes.ErrGRPCDuplicateKey},
		"a comparison without a key":        {&pb.TxnRequest{Compare: compare(1, "")}, rpctypes.ErrGRPCEmptyKey},
		"a put without a key":               {then(requestPut("")), rpctypes.ErrGRPCEmptyKey},
		"a get without a key":               {then(requestRange("", 0)), rpctypes.ErrGRPCEmptyKey},
		"a delete without a key":            {then(requestDelete("", "")), rpctypes.ErrGRPCEmptyKey},
		"an inner put without a key":        {then(requestTxn(requestPut(""))), rpctypes.ErrGRPCEmptyKey},
		"an operation of no kind":           {then(&pb.RequestOp{}), rpctypes.ErrGRPCKeyNotFound},
		"a get in an unknown order":         {then(order), rpctypes.ErrGRPCInvalidSortOption},
		"a put that keeps no key's lease":   {then(ignored), rpctypes.ErrGRPCKeyNotFound},
		"a put with an unknown lease":       {then(leased), rpctypes.ErrGRPCLeaseNotFound},
		"a get of the future beside a put":  {then(requestPut("a"), requestRange("a", before+100)), rpctypes.ErrGRPCFutureRev},
		"an inner get of the future":        {then(requestPut("a"), requestTxn(requestRange("a", before+100))), rpctypes.ErrGRPCFutureRev},
		"a get of the future":               {then(requestRange("a", before+100)), rpctypes.ErrGRPCFutureRev},
		"more bytes than a request may be":  {then(requestPut("a"), requestPut(string(make([]byte, 1536*1024)))), rpctypes.ErrGRPCRequestTooLarge},
		"the limit of operations":           {then(distinct(128, requestPut)...), nil},
		"the same key in both branches":     {&pb.TxnRequest{Success: []*pb.RequestOp{requestPut("a")}, Failure: []*pb.RequestOp{requestPut("a")}}, nil},
		"a put beside a deleted range":      {then(requestPut("c"), requestDelete("a", "c")), nil},
		"a key deleted twice":               {then(requestDelete("a", ""), requestDelete("a", "")), nil},
		"a lease that the other branch has": {&pb.TxnRequest{Success: []*pb.RequestOp{requestPut("a")}, Failure: []*pb.RequestOp{leased}}, nil},
	} {
		before := s.revision()
		_, err := s.kv().Txn(s.ctx, test.txn)
		if !isStatus(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
		if after := s.revision(); err != nil && after != before {
			t.Errorf("%s moved the revision from %d to %d", name, before, after)
		}
	}
}

func txnAtomic(t *testing.T, s *session) {
	s.delete("", clientv3.WithPrefix())
	s.put("key", "1")
	compacted := s.put("key", "2").Header.Revision
	_, err := s.Compact(s.ctx, compacted)
	s.check("compact", err)
	for name, bad := range map[string]*pb.RequestOp{"compacted": requestRange("key", compacted-1), "future": requestRange("key", compacted+100)} {
		want := map[string]error{"compacted": rpctypes.ErrGRPCCompacted, "future": rpctypes.ErrGRPCFutureRev}[name]
		_, err := s.kv().Txn(s.ctx, &pb.TxnRequest{Success: []*pb.RequestOp{requestPut("beside"), bad}})
		if !isStatus(err, want) {
			t.Errorf("%s: %v", name, err)
		}
		if n := s.get("beside").Count; n != 0 {
			t.Errorf("%s: the put beside the failed get took effect", name)
		}
	}
}
