package store

import (
	"cmp"
	"context"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"google.golang.org/protobuf/proto"

	raftlogv1 "tripod.dev/tripod/proto/raftlog/v1"
)

// Keys of the hub's records about itself; see proto/raftlog/v1/record.proto.
const (
	recordsPrefix   = "/tripod.dev/hub/"
	membersPrefix   = recordsPrefix + "members/"
	operatorsPrefix = recordsPrefix + "operators/"
	sealKey         = recordsPrefix + "seal"
)

// book is the address book of the members: committed records first, and what
// this member's configuration says of those that have none yet, as in a new hub
// before its first leader.
type book struct {
	machine *machine
	first   []Member
}

// lookup finds a member by name.
func (b *book) lookup(name string) (Member, bool) {
	if record := b.record(name); record != nil {
		return memberOf(record), true
	}
	for _, m := range b.first {
		if m.Name == name {
			return m, true
		}
	}
	return Member{}, false
}

// nameAt is the name of the member whose Raft listener is at address; empty if
// it is nobody's.
func (b *book) nameAt(address string) string {
	for _, record := range b.records() {
		if record.GetRaftAddress() == address {
			return record.GetName()
		}
	}
	for _, m := range b.first {
		if m.RaftAddress == address {
			return m.Name
		}
	}
	return ""
}

// record is the committed record of a member; nil if it has none.
func (b *book) record(name string) *raftlogv1.MemberRecord {
	for _, r := range b.read(membersPrefix+name, nil) {
		return r
	}
	return nil
}

// records are all committed ones, by name.
func (b *book) records() []*raftlogv1.MemberRecord {
	return b.read(membersPrefix, prefixEnd(membersPrefix))
}

func (b *book) read(key string, end []byte) []*raftlogv1.MemberRecord {
	var out []*raftlogv1.MemberRecord
	for _, value := range b.machine.values(key, end) {
		record := &raftlogv1.MemberRecord{}
		if err := proto.Unmarshal(value, record); err != nil {
			// Only this package writes them; a newer build may have changed them.
			b.machine.log.Error("a member's record cannot be read", "key", key, "error", err)
			continue
		}
		out = append(out, record)
	}
	return out
}

// values are those of the keys in a range, as applied on this member.
func (s *machine) values(key string, end []byte) [][]byte {
	if err := s.readers.enter(); err != nil {
		return nil
	}
	defer s.readers.leave()
	result, err := s.kv.Range(context.Background(), []byte(key), end, mvcc.RangeOptions{})
	if err != nil {
		s.log.Error("the hub's own records cannot be read", "key", key, "error", err)
		return nil
	}
	out := make([][]byte, 0, len(result.KVs))
	for _, kv := range result.KVs {
		out = append(out, kv.Value)
	}
	return out
}

func memberOf(r *raftlogv1.MemberRecord) Member {
	return Member{
		Name: r.GetName(), Region: r.GetRegion(), Center: r.GetCenter(), Address: r.GetAddress(),
		RaftAddress: r.GetRaftAddress(), PeerAddress: r.GetPeerAddress(),
	}
}

func recordOf(m Member, replaces string) *raftlogv1.MemberRecord {
	return &raftlogv1.MemberRecord{
		Name: m.Name, Region: m.Region, Center: m.Center, Address: m.Address,
		RaftAddress: m.RaftAddress, PeerAddress: m.PeerAddress, Replaces: replaces,
	}
}

// putRecord stores one of the hub's records.
func putRecord(key string, record proto.Message) Op {
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(record)
	if err != nil {
		return Op{err: fmt.Errorf("encode record %s: %w", key, err)}
	}
	return Put(&pb.PutRequest{Key: []byte(key), Value: value})
}

func dropRecord(key string) Op { return Delete(&pb.DeleteRangeRequest{Key: []byte(key)}) }

// better is m with what it lacks taken from other.
func (m Member) better(other Member) Member {
	m.Region, m.Center = cmp.Or(m.Region, other.Region), cmp.Or(m.Center, other.Center)
	m.Address, m.PeerAddress = cmp.Or(m.Address, other.Address), cmp.Or(m.PeerAddress, other.PeerAddress)
	return m
}
