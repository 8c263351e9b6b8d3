package store

import (
	"bytes"
	"context"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
)

// State is the state as applied on this member; it may be behind the leader's.
type State struct{ machine *machine }

// Range returns the keys with prefix, in order, and the revision they are of, as
// applied on this member: it may be behind the leader.
func (s *State) Range(ctx context.Context, prefix string) ([]mvccpb.KeyValue, int64, error) {
	var end []byte
	if prefix == "" {
		prefix, end = "\x00", []byte{}
	} else {
		end = prefixEnd(prefix)
	}
	if err := s.machine.readers.enter(); err != nil {
		return nil, 0, err
	}
	defer s.machine.readers.leave()
	result, err := s.machine.kv.Range(ctx, []byte(prefix), end, mvcc.RangeOptions{})
	if err != nil {
		return nil, 0, fmt.Errorf("read range %q: %w", prefix, err)
	}
	return result.KVs, result.Rev, nil
}

// eachPage is how many keys Each reads at a time.
const eachPage = 500

// Each calls f with every key with prefix, in order, as applied on this member,
// without holding all in memory. Keys that are written meanwhile may be missed.
func (s *State) Each(ctx context.Context, prefix string, f func(mvccpb.KeyValue) error) error {
	key, end := []byte(prefix), prefixEnd(prefix)
	for {
		result, err := s.page(ctx, key, end)
		if err != nil {
			return fmt.Errorf("read range %q: %w", prefix, err)
		}
		for _, kv := range result.KVs {
			if err := f(kv); err != nil {
				return err
			}
		}
		if len(result.KVs) < eachPage {
			return nil
		}
		key = append(bytes.Clone(result.KVs[len(result.KVs)-1].Key), 0)
	}
}

func (s *State) page(ctx context.Context, key, end []byte) (*mvcc.RangeResult, error) {
	if err := s.machine.readers.enter(); err != nil {
		return nil, err
	}
	defer s.machine.readers.leave()
	return s.machine.kv.Range(ctx, key, end, mvcc.RangeOptions{Limit: eachPage})
}

// prefixEnd is the first key after all keys with prefix; empty means no end.
func prefixEnd(prefix string) []byte {
	end := []byte(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xff {
			end[i]++
			return end[:i+1]
		}
	}
	return []byte{}
}

// AppliedIndex is the index of the last entry applied on this member.
func (s *State) AppliedIndex() uint64 { return s.machine.applied.Load() }

// Revision is the revision of the key-value state on this member.
func (s *State) Revision() int64 { return s.machine.kv.Rev() }

// Incarnation is the incarnation in force, 0 before the first leader.
func (s *State) Incarnation() uint64 { return s.machine.incarnation.Load() }

// KV is the local state, for serializable reads and watches. Callers must not
// write to it.
func (s *State) KV() mvcc.WatchableKV { return s.machine.kv }
