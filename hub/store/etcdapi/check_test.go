package etcdapi

import (
	"errors"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

func putOp(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key)}}}
}

func deleteOp(key, end string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end)}}}
}

func txnOp(then, otherwise []*pb.RequestOp) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Success: then, Failure: otherwise}}}
}

func TestTransactionsAreCheckedAsEtcdDoes(t *testing.T) {
	tests := map[string]struct {
		txn  pb.TxnRequest
		want error
	}{
		"different keys are accepted":                     {pb.TxnRequest{Success: []*pb.RequestOp{putOp("a"), putOp("b")}}, nil},
		"a key put twice is refused":                      {pb.TxnRequest{Success: []*pb.RequestOp{putOp("a"), putOp("a")}}, rpctypes.ErrGRPCDuplicateKey},
		"the branches may put the same key":               {pb.TxnRequest{Success: []*pb.RequestOp{putOp("a")}, Failure: []*pb.RequestOp{putOp("a")}}, nil},
		"a put inside a deleted range is refused":         {pb.TxnRequest{Success: []*pb.RequestOp{deleteOp("a", "c"), putOp("b")}}, rpctypes.ErrGRPCDuplicateKey},
		"a put at the end of a deleted range is accepted": {pb.TxnRequest{Success: []*pb.RequestOp{deleteOp("a", "c"), putOp("c")}}, nil},
		"nested branches may put the same key":            {pb.TxnRequest{Success: []*pb.RequestOp{txnOp([]*pb.RequestOp{putOp("a")}, []*pb.RequestOp{putOp("a")})}}, nil},
		"a nested put of an outer key is refused":         {pb.TxnRequest{Success: []*pb.RequestOp{putOp("a"), txnOp([]*pb.RequestOp{putOp("a")}, nil)}}, rpctypes.ErrGRPCDuplicateKey},
		"two nested puts of one key are refused":          {pb.TxnRequest{Success: []*pb.RequestOp{txnOp([]*pb.RequestOp{putOp("a")}, nil), txnOp([]*pb.RequestOp{putOp("a")}, nil)}}, rpctypes.ErrGRPCDuplicateKey},
		"an empty key is refused":                         {pb.TxnRequest{Success: []*pb.RequestOp{putOp("")}}, rpctypes.ErrGRPCEmptyKey},
		"an empty operation is refused":                   {pb.TxnRequest{Success: []*pb.RequestOp{{}}}, rpctypes.ErrGRPCKeyNotFound},
		"a comparison without a key is refused":           {pb.TxnRequest{Compare: []*pb.Compare{{}}}, rpctypes.ErrGRPCEmptyKey},
		"too many operations are refused": {
			pb.TxnRequest{Success: []*pb.RequestOp{putOp("a"), putOp("b"), putOp("c"), putOp("d")}}, rpctypes.ErrGRPCTooManyOps},
		"nested operations count": {
			pb.TxnRequest{Success: []*pb.RequestOp{putOp("a"), txnOp([]*pb.RequestOp{putOp("b"), putOp("c")}, nil)}}, rpctypes.ErrGRPCTooManyOps},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if err := checkTxn(&test.txn, 3); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

func TestFragmentsAreSmallCompleteAndMarked(t *testing.T) {
	const limit = 4096
	event := func(size int) *mvccpb.Event {
		return &mvccpb.Event{Kv: &mvccpb.KeyValue{Key: []byte("k"), Value: []byte(strings.Repeat("v", size))}}
	}
	tests := map[string]struct {
		sizes []int
		parts int
	}{
		"what fits is sent as one":            {[]int{100, 100}, 1},
		"one event is never split":            {[]int{10_000}, 1},
		"many events are split":               {[]int{1100, 1100, 1100, 1100, 1100, 1100, 1100}, 3},
		"an oversized event travels alone":    {[]int{100, 10_000, 100}, 3},
		"events just under the limit go each": {[]int{4000, 4000, 4000}, 3},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			whole := &pb.WatchResponse{Header: &pb.ResponseHeader{Revision: 9}, WatchId: 4}
			for _, size := range test.sizes {
				whole.Events = append(whole.Events, event(size))
			}
			var parts []*pb.WatchResponse
			if err := sendFragments(whole, limit, func(r *pb.WatchResponse) error { parts = append(parts, r); return nil }); err != nil {
				t.Fatal(err)
			}
			if len(parts) != test.parts {
				t.Fatalf("%d parts, want %d", len(parts), test.parts)
			}
			events := 0
			for i, p := range parts {
				if p.Fragment != (i < len(parts)-1) || p.WatchId != 4 || p.Header.Revision != 9 {
					t.Errorf("part %d: fragment %v, watch %d", i, p.Fragment, p.WatchId)
				}
				if p.Size() > limit && len(p.Events) > 1 {
					t.Errorf("part %d has %d bytes in %d events", i, p.Size(), len(p.Events))
				}
				for _, e := range p.Events {
					if e != whole.Events[events] {
						t.Errorf("event %d is out of place", events)
					}
					events++
				}
			}
			if events != len(whole.Events) {
				t.Errorf("%d events, want %d", events, len(whole.Events))
			}
		})
	}
}
