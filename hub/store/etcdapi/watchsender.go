package etcdapi

import (
	"context"
	"math"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/storage/mvcc"

	"tripod.dev/tripod/hub/store"
)

// watchSender is the sending side of a watch stream; one goroutine uses it.
type watchSender struct {
	stream *watchStream
	// announced watches are those whose creation the client has been told.
	announced map[mvcc.WatchID]struct{}
	// pending events came before their watch was announced.
	pending map[mvcc.WatchID][]*pb.WatchResponse
}

func (s *watchSender) event(resp mvcc.WatchResponse) error {
	options := s.stream.option(resp.WatchID, len(resp.Events) > 0)
	out := &pb.WatchResponse{
		Header:          s.stream.server.header.new(resp.Revision),
		WatchId:         int64(resp.WatchID),
		Events:          s.events(resp.Events, options.prevKV),
		CompactRevision: resp.CompactRevision,
		Canceled:        resp.CompactRevision != 0,
	}
	// A progress notification for the whole stream has no watch of its own.
	if resp.WatchID != clientv3.InvalidWatchID {
		if _, ok := s.announced[resp.WatchID]; !ok {
			s.pending[resp.WatchID] = append(s.pending[resp.WatchID], out)
			return nil
		}
	}
	return s.send(out, options.fragment)
}

func (s *watchSender) events(in []mvccpb.Event, prevKV bool) []*mvccpb.Event {
	out := make([]*mvccpb.Event, len(in))
	for i := range in {
		out[i] = &in[i]
		created := in[i].Type == mvccpb.PUT && in[i].Kv.CreateRevision == in[i].Kv.ModRevision
		if !prevKV || created {
			continue
		}
		out[i].PrevKv = s.before(in[i].Kv)
	}
	return out
}

// before is what the key held before the revision of kv; nil if nothing, or nothing
// that can still be read.
func (s *watchSender) before(kv *mvccpb.KeyValue) *mvccpb.KeyValue {
	store := s.stream.server.store
	if err := store.Enter(); err != nil {
		return nil // the stream ends
	}
	defer store.Leave()
	r, err := store.KV().Range(context.Background(), kv.Key, nil, mvcc.RangeOptions{Rev: kv.ModRevision - 1})
	if err != nil || len(r.KVs) == 0 {
		return nil
	}
	return &r.KVs[0]
}

func (s *watchSender) control(resp *pb.WatchResponse) error {
	if err := s.stream.grpc.Send(resp); err != nil {
		return err
	}
	id := mvcc.WatchID(resp.WatchId)
	if id == clientv3.InvalidWatchID {
		return nil
	}
	if resp.Canceled {
		delete(s.announced, id)
		return nil
	}
	s.announced[id] = struct{}{}
	pending := s.pending[id]
	delete(s.pending, id)
	for _, p := range pending {
		if err := s.send(p, s.stream.option(id, false).fragment); err != nil {
			return err
		}
	}
	return nil
}

func (s *watchSender) send(resp *pb.WatchResponse, fragment bool) error {
	mvcc.ReportEventReceived(len(resp.Events))
	cfg := s.stream.server.cfg
	if err := cfg.Fail.At(store.BeforeWatchSend); err != nil {
		return err
	}
	limit := math.MaxInt
	if fragment {
		limit = cfg.MaxRequestBytes
	}
	if err := sendFragments(resp, limit, s.stream.grpc.Send); err != nil {
		return err
	}
	return cfg.Fail.At(store.AfterWatchSend)
}

// drain keeps etcd's gauge of pending events right.
func (s *watchSender) drain() {
	for resp := range s.stream.events.Chan() {
		mvcc.ReportEventReceived(len(resp.Events))
	}
	for _, pending := range s.pending {
		for _, resp := range pending {
			mvcc.ReportEventReceived(len(resp.Events))
		}
	}
}

// sendFragments splits a response so that each part is smaller than limit bytes
// or holds one event; all parts but the last are marked.
func sendFragments(resp *pb.WatchResponse, limit int, send func(*pb.WatchResponse) error) error {
	if resp.Size() < limit || len(resp.Events) < 2 {
		return send(resp)
	}
	for next := 0; next < len(resp.Events); {
		part := *resp
		part.Events = nil
		size := part.Size()
		for next < len(resp.Events) {
			// The event, its tag and the length before it.
			add := resp.Events[next].Size() + 12
			if len(part.Events) > 0 && size+add >= limit {
				break
			}
			part.Events = append(part.Events, resp.Events[next])
			size += add
			next++
		}
		part.Fragment = next < len(resp.Events)
		if err := send(&part); err != nil {
			return err
		}
	}
	return nil
}
