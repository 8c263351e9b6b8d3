package store

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	raftlogv1 "tripod.dev/tripod/proto/raftlog/v1"
)

const incarnationsPrefix = recordsPrefix + "incarnations/"

func incarnationKeyOf(n uint64) string { return fmt.Sprintf("%s%020d", incarnationsPrefix, n) }

// Incarnations tell how the hub's incarnations began, and who may begin one.
type Incarnations struct{ store *Store }

// Incarnations are the hub's.
func (s *Store) Incarnations() *Incarnations { return &Incarnations{store: s} }

// Sealed says whether the hub was restored and has not been approved, as applied
// here: it must then observe and change nothing in the clusters.
func (i *Incarnations) Sealed() bool { return i.store.machine.sealed() }

func (s *machine) sealed() bool { return len(s.values(sealKey, nil)) > 0 }

// Begun is the record of how the present incarnation began; nil if it is the
// first.
func (i *Incarnations) Begun() *raftlogv1.IncarnationRecord {
	for _, value := range i.store.machine.values(incarnationKeyOf(i.store.Incarnation()), nil) {
		record := &raftlogv1.IncarnationRecord{}
		if err := proto.Unmarshal(value, record); err == nil {
			return record
		}
	}
	return nil
}

// Approve ends the seal of a restored hub and records who did it, both or
// neither. It fails if the hub is not sealed, or of another incarnation.
func (i *Incarnations) Approve(ctx context.Context, incarnation uint64, by string) error {
	if err := i.store.Linearize(ctx); err != nil {
		return err
	}
	if !i.Sealed() {
		return errors.New("this hub is not sealed: there is nothing to approve")
	}
	if current := i.store.Incarnation(); current != incarnation {
		return fmt.Errorf("the hub is of incarnation %d, not %d: look at the difference again", current, incarnation)
	}
	record := i.Begun()
	if record == nil {
		record = &raftlogv1.IncarnationRecord{Incarnation: incarnation}
	}
	record.ApprovedBy = by
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(record)
	if err != nil {
		return fmt.Errorf("encode the record of incarnation %d: %w", incarnation, err)
	}
	result, err := i.store.Propose(ctx, Txn(&pb.TxnRequest{
		Compare: []*pb.Compare{{
			Key: []byte(sealKey), Target: pb.Compare_CREATE, Result: pb.Compare_GREATER,
			TargetUnion: &pb.Compare_CreateRevision{CreateRevision: 0},
		}},
		Success: []*pb.RequestOp{
			{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(sealKey)}}},
			{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(incarnationKeyOf(incarnation)), Value: value}}},
		},
	}))
	if err != nil {
		return fmt.Errorf("approve incarnation %d: %w", incarnation, err)
	}
	if response, ok := result.Response.(*pb.TxnResponse); !ok || !response.Succeeded {
		return errors.New("this hub was approved by somebody else meanwhile")
	}
	return nil
}

// Register stores an operator's key for statements, in the place of an earlier
// one.
func (i *Incarnations) Register(ctx context.Context, operator string, key ed25519.PublicKey) error {
	if operator == "" || len(key) != ed25519.PublicKeySize {
		return fmt.Errorf("register the key of operator %q: %d bytes, want an Ed25519 key of %d", operator, len(key), ed25519.PublicKeySize)
	}
	_, err := i.store.Propose(ctx, putRecord(operatorsPrefix+operator, &raftlogv1.OperatorKey{Operator: operator, PublicKey: key}))
	if err != nil {
		return fmt.Errorf("register the key of operator %q: %w", operator, err)
	}
	return nil
}

// Operators are those whose keys are registered, in order.
func (i *Incarnations) Operators() []string {
	var names []string
	for name := range i.store.machine.operators() {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// operators are the registered keys, by operator.
func (s *machine) operators() map[string]ed25519.PublicKey {
	keys := map[string]ed25519.PublicKey{}
	for _, value := range s.values(operatorsPrefix, prefixEnd(operatorsPrefix)) {
		record := &raftlogv1.OperatorKey{}
		if err := proto.Unmarshal(value, record); err != nil || len(record.GetPublicKey()) != ed25519.PublicKeySize {
			s.log.Error("an operator's key cannot be read and is passed over", "operator", record.GetOperator(), "error", err)
			continue
		}
		keys[record.GetOperator()] = record.GetPublicKey()
	}
	return keys
}
