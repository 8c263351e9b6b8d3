package store

import (
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	raftlogv1 "tripod.dev/tripod/proto/raftlog/v1"
)

// CommandVersion is the version of the command set that this build writes and
// the newest that it can apply. See proto/raftlog/v1/command.proto. Version 2
// brought the alarm.
const CommandVersion = 2

// alarmVersion is the lowest version that can apply an alarm.
const alarmVersion = 2

// Op is one command to propose: made by Put, Delete, Txn and the like.
type Op struct {
	command *raftlogv1.Command
	err     error
}

type marshaler interface{ Marshal() ([]byte, error) }

func newOp(request marshaler, wrap func([]byte) *raftlogv1.Command) Op {
	data, err := request.Marshal()
	if err != nil {
		return Op{err: fmt.Errorf("encode command: %w", err)}
	}
	command := wrap(data)
	command.Version = 1
	return Op{command: command}
}

// Put stores one key.
func Put(r *pb.PutRequest) Op {
	return newOp(r, func(b []byte) *raftlogv1.Command {
		return &raftlogv1.Command{Op: &raftlogv1.Command_Put{Put: b}}
	})
}

// Delete removes a range of keys.
func Delete(r *pb.DeleteRangeRequest) Op {
	return newOp(r, func(b []byte) *raftlogv1.Command {
		return &raftlogv1.Command{Op: &raftlogv1.Command_DeleteRange{DeleteRange: b}}
	})
}

// Txn executes a transaction that may write.
func Txn(r *pb.TxnRequest) Op {
	return newOp(r, func(b []byte) *raftlogv1.Command {
		return &raftlogv1.Command{Op: &raftlogv1.Command_Txn{Txn: b}}
	})
}

// Compact drops superseded revisions.
func Compact(r *pb.CompactionRequest) Op {
	return newOp(r, func(b []byte) *raftlogv1.Command {
		return &raftlogv1.Command{Op: &raftlogv1.Command_Compact{Compact: b}}
	})
}

// LeaseGrant creates an etcd lease; the request must carry its ID.
func LeaseGrant(r *pb.LeaseGrantRequest) Op {
	return newOp(r, func(b []byte) *raftlogv1.Command {
		return &raftlogv1.Command{Op: &raftlogv1.Command_LeaseGrant{LeaseGrant: b}}
	})
}

// LeaseRevoke ends an etcd lease and deletes its keys.
func LeaseRevoke(r *pb.LeaseRevokeRequest) Op {
	return newOp(r, func(b []byte) *raftlogv1.Command {
		return &raftlogv1.Command{Op: &raftlogv1.Command_LeaseRevoke{LeaseRevoke: b}}
	})
}

func leaseCheckpoint(r *pb.LeaseCheckpointRequest) Op {
	return newOp(r, func(b []byte) *raftlogv1.Command {
		return &raftlogv1.Command{Op: &raftlogv1.Command_LeaseCheckpoint{LeaseCheckpoint: b}}
	})
}

// alarmed raises an alarm of a member, or takes it back.
func alarmed(r *pb.AlarmRequest) Op {
	op := newOp(r, func(b []byte) *raftlogv1.Command {
		return &raftlogv1.Command{Op: &raftlogv1.Command_Alarm{Alarm: b}}
	})
	if op.err == nil {
		op.command.Version = alarmVersion
	}
	return op
}

func leaseRenewal(r *raftlogv1.LeaseRenewal) Op {
	return Op{command: &raftlogv1.Command{Version: 1, Op: &raftlogv1.Command_LeaseRenewal{LeaseRenewal: r}}}
}

func startIncarnation(r *raftlogv1.StartIncarnation) Op {
	return Op{command: &raftlogv1.Command{Version: 1, Op: &raftlogv1.Command_StartIncarnation{StartIncarnation: r}}}
}

func encodeOp(op Op) ([]byte, error) {
	if op.err != nil {
		return nil, op.err
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(op.command)
	if err != nil {
		return nil, fmt.Errorf("encode command: %w", err)
	}
	return data, nil
}

func decodeCommand(data []byte) (*raftlogv1.Command, error) {
	var command raftlogv1.Command
	if err := proto.Unmarshal(data, &command); err != nil {
		return nil, fmt.Errorf("decode command: %w", err)
	}
	if command.GetVersion() > CommandVersion {
		return nil, fmt.Errorf("command of version %d, this build applies up to %d: upgrade this member", command.GetVersion(), CommandVersion)
	}
	if command.GetOp() == nil {
		return nil, fmt.Errorf("command of version %d without a known operation: upgrade this member", command.GetVersion())
	}
	return &command, nil
}
