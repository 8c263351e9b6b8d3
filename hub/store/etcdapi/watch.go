package etcdapi

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tripod.dev/tripod/hub/store"
)

// watchServer serves watches from the member's own state: a client sees what
// this member has applied, in order, and no more.
type watchServer struct {
	store  *store.Store
	header header
	cfg    Config
}

// watchStream is one client stream: recvLoop takes requests, sendLoop alone
// sends. What recvLoop has to answer passes through control, so that answers and
// events keep their order; nil asks sendLoop for the progress of the whole stream.
type watchStream struct {
	server  *watchServer
	grpc    pb.Watch_WatchServer
	events  mvcc.WatchStream
	control chan *pb.WatchResponse
	closed  chan struct{}

	mu sync.Mutex
	// options of the watches by ID.
	options map[mvcc.WatchID]*watchOptions
}

type watchOptions struct {
	progress bool
	// quiet: no event was sent since the last progress tick.
	quiet    bool
	prevKV   bool
	fragment bool
}

// Watch implements pb.WatchServer.
func (s *watchServer) Watch(stream pb.Watch_WatchServer) error {
	w := &watchStream{
		server: s, grpc: stream, events: s.store.KV().NewWatchStream(),
		control: make(chan *pb.WatchResponse, 16), closed: make(chan struct{}),
		options: map[mvcc.WatchID]*watchOptions{},
	}
	sender := &watchSender{stream: w, announced: map[mvcc.WatchID]struct{}{}, pending: map[mvcc.WatchID][]*pb.WatchResponse{}}
	var sending sync.WaitGroup
	sent := make(chan error, 1)
	sending.Go(func() { sent <- w.sendLoop(sender) })
	received := make(chan error, 1)
	go func() {
		// A client that will ask nothing more is told events all the same.
		if err := w.recvLoop(); err != nil {
			received <- err
		}
	}()

	var err error
	select {
	case err = <-received:
	case err = <-sent:
	case <-stream.Context().Done():
		err = stream.Context().Err()
	}
	w.events.Close()
	close(w.closed)
	sending.Wait()
	sender.drain()
	if errors.Is(err, context.Canceled) || status.Code(err) == codes.Canceled {
		return rpctypes.ErrGRPCWatchCanceled
	}
	return err
}

func (w *watchStream) recvLoop() error {
	for {
		req, err := w.grpc.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch r := req.RequestUnion.(type) {
		case *pb.WatchRequest_CreateRequest:
			if r.CreateRequest != nil && !w.answer(w.create(r.CreateRequest)) {
				return nil
			}
		case *pb.WatchRequest_CancelRequest:
			if r.CancelRequest != nil && !w.cancel(mvcc.WatchID(r.CancelRequest.WatchId)) {
				return nil
			}
		case *pb.WatchRequest_ProgressRequest:
			if r.ProgressRequest != nil {
				if !w.answer(nil) {
					return nil
				}
			}
		}
	}
}

func (w *watchStream) answer(resp *pb.WatchResponse) bool {
	select {
	case w.control <- resp:
		return true
	case <-w.closed:
		return false
	}
}

func (w *watchStream) create(r *pb.WatchCreateRequest) *pb.WatchResponse {
	if r.StartRevision < 0 {
		return w.refused(rpctypes.ErrCompacted.Error())
	}
	key, end := watchRange(r)
	id, err := w.events.Watch(mvcc.WatchID(r.WatchId), key, end, r.StartRevision, filters(r)...)
	if err != nil {
		return w.refused(err.Error())
	}
	w.mu.Lock()
	w.options[id] = &watchOptions{progress: r.ProgressNotify, quiet: true, prevKV: r.PrevKv, fragment: r.Fragment}
	w.mu.Unlock()
	return &pb.WatchResponse{Header: w.server.header.new(w.events.Rev()), WatchId: int64(id), Created: true}
}

func (w *watchStream) refused(reason string) *pb.WatchResponse {
	return &pb.WatchResponse{
		Header: w.server.header.new(w.events.Rev()), WatchId: clientv3.InvalidWatchID,
		Created: true, Canceled: true, CancelReason: reason,
	}
}

func (w *watchStream) cancel(id mvcc.WatchID) bool {
	if err := w.events.Cancel(id); err != nil {
		return true
	}
	ok := w.answer(&pb.WatchResponse{Header: w.server.header.new(w.events.Rev()), WatchId: int64(id), Canceled: true})
	w.mu.Lock()
	delete(w.options, id)
	w.mu.Unlock()
	return ok
}

// watchRange reads the range as etcd does: an empty key is the smallest one, an
// end of one zero byte is "no end", which mvcc calls an empty one.
func watchRange(r *pb.WatchCreateRequest) (key, end []byte) {
	key, end = r.Key, r.RangeEnd
	if len(key) == 0 {
		key = []byte{0}
	}
	switch {
	case len(end) == 0:
		end = nil
	case len(end) == 1 && end[0] == 0:
		end = []byte{}
	}
	return key, end
}

func filters(r *pb.WatchCreateRequest) []mvcc.FilterFunc {
	var out []mvcc.FilterFunc
	for _, f := range r.Filters {
		switch f {
		case pb.WatchCreateRequest_NOPUT:
			out = append(out, func(e mvccpb.Event) bool { return e.Type == mvccpb.PUT })
		case pb.WatchCreateRequest_NODELETE:
			out = append(out, func(e mvccpb.Event) bool { return e.Type == mvccpb.DELETE })
		}
	}
	return out
}

// sendLoop returns when the stream ends, or with the error of what could not be
// sent: a client that misses a response must be told that the stream is over.
func (w *watchStream) sendLoop(sender *watchSender) error {
	// Jitter keeps the watches that a restarted client made together from being
	// notified together for ever.
	interval := w.server.cfg.ProgressInterval
	tick := time.NewTicker(interval + rand.N(interval/10+1))
	defer tick.Stop()
	for {
		select {
		case resp, ok := <-w.events.Chan():
			if !ok {
				return nil
			}
			if err := sender.event(resp); err != nil {
				return err
			}
		case resp := <-w.control:
			if resp == nil {
				if err := w.progressAll(sender); err != nil {
					return err
				}
				continue
			}
			if err := sender.control(resp); err != nil {
				return err
			}
		case <-tick.C:
			w.requestProgress()
		case <-w.closed:
			return nil
		}
	}
}

// progressAll sends the progress of the whole stream, if all of it has come that far,
// before anything else is announced: clients take it for all watches that they know
// by then, and one that is created meanwhile may have its past still to come.
func (w *watchStream) progressAll(sender *watchSender) error {
	if !w.events.RequestProgressAll() {
		return nil
	}
	for {
		select {
		case resp, ok := <-w.events.Chan():
			if !ok {
				return nil
			}
			if err := sender.event(resp); err != nil || resp.WatchID == clientv3.InvalidWatchID {
				return err
			}
		default: // it did not fit in
			return nil
		}
	}
}

func (w *watchStream) requestProgress() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, o := range w.options {
		if !o.progress {
			continue
		}
		if o.quiet {
			w.events.RequestProgress(id)
		}
		o.quiet = true
	}
}

func (w *watchStream) option(id mvcc.WatchID, spoke bool) watchOptions {
	w.mu.Lock()
	defer w.mu.Unlock()
	o := w.options[id]
	if o == nil {
		return watchOptions{}
	}
	if spoke {
		o.quiet = false
	}
	return *o
}
