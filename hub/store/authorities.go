package store

import (
	"context"
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	raftlogv1 "tripod.dev/tripod/proto/raftlog/v1"
)

const authoritiesKey = recordsPrefix + "authorities"

// Authorities are the hub's CAs, as committed.
type Authorities struct{ store *Store }

// Authorities are the hub's.
func (s *Store) Authorities() *Authorities { return &Authorities{store: s} }

// Applied is the record as applied on this member; nil if the hub has none.
func (a *Authorities) Applied() (*raftlogv1.AuthoritiesRecord, error) {
	values := a.store.machine.values(authoritiesKey, nil)
	if len(values) == 0 {
		return nil, nil
	}
	record := &raftlogv1.AuthoritiesRecord{}
	if err := proto.Unmarshal(values[0], record); err != nil {
		return nil, fmt.Errorf("read the record of the hub's CAs: %w", err)
	}
	return record, nil
}

// ErrAuthoritiesChanged says that somebody else has changed the record meanwhile.
var ErrAuthoritiesChanged = errors.New("the record of the hub's CAs was changed meanwhile: look again")

// Commit replaces the record that was read, nil if there was none, by the next one.
// On return it is committed and applied here.
func (a *Authorities) Commit(ctx context.Context, read, next *raftlogv1.AuthoritiesRecord) error {
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(next)
	if err != nil {
		return fmt.Errorf("encode the record of the hub's CAs: %w", err)
	}
	unchanged := &pb.Compare{Key: []byte(authoritiesKey), Target: pb.Compare_CREATE, Result: pb.Compare_EQUAL,
		TargetUnion: &pb.Compare_CreateRevision{CreateRevision: 0}}
	if read != nil {
		before, err := proto.MarshalOptions{Deterministic: true}.Marshal(read)
		if err != nil {
			return fmt.Errorf("encode the record of the hub's CAs: %w", err)
		}
		unchanged = &pb.Compare{Key: []byte(authoritiesKey), Target: pb.Compare_VALUE, Result: pb.Compare_EQUAL,
			TargetUnion: &pb.Compare_Value{Value: before}}
	}
	result, err := a.store.Propose(ctx, Txn(&pb.TxnRequest{
		Compare: []*pb.Compare{unchanged},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(authoritiesKey), Value: value}}}},
	}))
	if err != nil {
		return fmt.Errorf("commit the hub's CAs: %w", err)
	}
	if response, ok := result.Response.(*pb.TxnResponse); !ok || !response.Succeeded {
		return ErrAuthoritiesChanged
	}
	return nil
}
