package store

import (
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	raftlogv1 "tripod.dev/tripod/proto/raftlog/v1"
)

// Op is one command to propose: made by Put, Delete, Txn and the like.
type Op struct {
	// command is as of level 1, or of the level that brought it.
	command *raftlogv1.Command
	// fenced commands say from level 2 on which incarnation they belong to.
	fenced bool
	err    error
}

type marshaler interface{ Marshal() ([]byte, error) }

func newOp(request marshaler, wrap func([]byte) *raftlogv1.Command) Op {
	data, err := request.Marshal()
	if err != nil {
		return Op{err: fmt.Errorf("encode command: %w", err)}
	}
	command := wrap(data)
	command.Version = 1
	return Op{command: command, fenced: true}
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
		op.command.Version = levelAlarm
	}
	return op
}

func leaseRenewal(r *raftlogv1.LeaseRenewal) Op {
	return Op{command: &raftlogv1.Command{Version: 1, Op: &raftlogv1.Command_LeaseRenewal{LeaseRenewal: r}}}
}

func startIncarnation(r *raftlogv1.StartIncarnation) Op {
	return Op{command: &raftlogv1.Command{Version: 1, Op: &raftlogv1.Command_StartIncarnation{StartIncarnation: r}}}
}

// raiseLevel has the level as its version: who does not understand it stops there.
func raiseLevel(r *raftlogv1.RaiseLevel) Op {
	return Op{command: &raftlogv1.Command{Version: r.GetLevel(), Op: &raftlogv1.Command_RaiseLevel{RaiseLevel: r}}}
}

// at encodes the command as it is written while level is in force and the hub is
// in incarnation (0: not yet in one). It fails for one that is above level.
func (op Op) at(level uint32, incarnation uint64) ([]byte, error) {
	if op.err != nil {
		return nil, op.err
	}
	if since := op.command.GetVersion(); since > level {
		return nil, aboveLevel(since, level)
	}
	command := op.command
	if op.fenced && level >= levelIncarnation && incarnation != 0 {
		command = &raftlogv1.Command{Version: max(op.command.GetVersion(), levelIncarnation), Incarnation: incarnation, Op: op.command.GetOp()}
	}
	return encode(command)
}

// encodeOp encodes a command of the first level.
func encodeOp(op Op) ([]byte, error) { return op.at(firstLevel, 0) }

func encode(command *raftlogv1.Command) ([]byte, error) {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(command)
	if err != nil {
		return nil, fmt.Errorf("encode command: %w", err)
	}
	return data, nil
}

// decode reads a command that this member must understand: it is never skipped.
// met says where it was met.
func (s *machine) decode(data []byte, met string) (*raftlogv1.Command, error) {
	var command raftlogv1.Command
	if err := proto.Unmarshal(data, &command); err != nil {
		return nil, fmt.Errorf("decode command: %w", err)
	}
	if command.GetVersion() > s.understands || command.GetOp() == nil {
		return nil, &tooOldError{
			member: s.member, understands: s.understands, level: command.GetVersion(), met: met,
			members: command.GetRaiseLevel().GetMembers(),
		}
	}
	return &command, nil
}

// versionOf reads the version of an encoded command.
func versionOf(data []byte) uint32 {
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return 0
		}
		if number == 1 && kind == protowire.VarintType {
			version, _ := protowire.ConsumeVarint(data[n:])
			return uint32(version)
		}
		skipped := protowire.ConsumeFieldValue(number, kind, data[n:])
		if skipped < 0 {
			return 0
		}
		data = data[n+skipped:]
	}
	return 0
}
