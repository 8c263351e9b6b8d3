package clientcases_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"

	"tripod.dev/tripod/hub/store/storetest"
)

// stream makes a client use another gRPC stream: it keeps one for each different
// metadata.
func stream(ctx context.Context, i int) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "stream", fmt.Sprint(i))
}

// rawWatch is a stream without the client's own book-keeping.
type rawWatch struct {
	*session
	grpc pb.Watch_WatchClient
}

func (s *session) rawWatch() *rawWatch {
	s.t.Helper()
	w, err := s.watches().Watch(s.ctx)
	s.check("open stream", err)
	return &rawWatch{s, w}
}

func (w *rawWatch) create(r *pb.WatchCreateRequest) *pb.WatchResponse {
	w.t.Helper()
	w.check("create", w.grpc.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}}))
	return w.receive()
}

func (w *rawWatch) cancel(id int64) {
	w.t.Helper()
	w.check("cancel", w.grpc.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}}))
}

func (w *rawWatch) receive() *pb.WatchResponse {
	w.t.Helper()
	r, err := w.grpc.Recv()
	w.check("receive", err)
	return r
}

// watchHalfClosed: a client that says that it has nothing more to ask is told
// events all the same, until it cancels.
func watchHalfClosed(t *testing.T, s *session) {
	w := s.rawWatch()
	from := s.revision() + 1
	if r := w.create(&pb.WatchCreateRequest{Key: []byte("half"), StartRevision: from}); !r.Created || r.Canceled {
		t.Fatalf("created: %v", r)
	}
	s.check("half-close", w.grpc.CloseSend())
	for i := range 3 {
		s.put("half", fmt.Sprint(i))
		if r := w.receive(); len(r.Events) != 1 || string(r.Events[0].Kv.Value) != fmt.Sprint(i) {
			t.Errorf("event %d: %v", i, r)
		}
	}
}

func watchIDs(t *testing.T, s *session) {
	w := s.rawWatch()
	from := s.revision() + 1
	for _, test := range []struct {
		name     string
		request  pb.WatchCreateRequest
		id       int64
		canceled bool
		reason   string
	}{
		{"the first of the server", pb.WatchCreateRequest{Key: []byte("id")}, 0, false, ""},
		{"one of the client", pb.WatchCreateRequest{Key: []byte("id"), WatchId: 7}, 7, false, ""},
		{"one that is taken", pb.WatchCreateRequest{Key: []byte("id"), WatchId: 7}, -1, true, "mvcc: duplicate watch ID provided on the WatchStream"},
		{"the next of the server", pb.WatchCreateRequest{Key: []byte("id")}, 1, false, ""},
		{"an empty range", pb.WatchCreateRequest{Key: []byte("id"), RangeEnd: []byte("id")}, -1, true, "mvcc: watcher range is empty"},
		{"an end before the start", pb.WatchCreateRequest{Key: []byte("id"), RangeEnd: []byte("a")}, -1, true, "mvcc: watcher range is empty"},
		{"an end of a zero byte is none", pb.WatchCreateRequest{Key: []byte("id"), RangeEnd: []byte{0}}, 2, false, ""},
		{"a negative revision", pb.WatchCreateRequest{Key: []byte("id"), StartRevision: -1}, -1, true, "etcdserver: mvcc: required revision has been compacted"},
	} {
		if test.request.StartRevision == 0 {
			test.request.StartRevision = from
		}
		r := w.create(&test.request)
		if !r.Created || r.WatchId != test.id || r.Canceled != test.canceled || r.CancelReason != test.reason {
			t.Errorf("%s: %v", test.name, r)
		}
	}
	s.put("id", "v")
	seen := map[int64]int{}
	for range 4 {
		seen[w.receive().WatchId]++
	}
	for _, id := range []int64{0, 1, 2, 7} {
		if seen[id] != 1 {
			t.Errorf("watch %d was told %d times, want once", id, seen[id])
		}
	}
	w.cancel(7)
	if r := w.receive(); r.WatchId != 7 || !r.Canceled || r.Created || r.CompactRevision != 0 {
		t.Errorf("cancelled: %v", r)
	}
	// Of a watch that is not there nothing is said; the next answer is another's.
	w.cancel(7)
	w.cancel(99)
	if r := w.create(&pb.WatchCreateRequest{Key: []byte("id"), WatchId: 7, StartRevision: from + 1}); r.WatchId != 7 || !r.Created || r.Canceled {
		t.Errorf("an identifier that is free again: %v", r)
	}
}

// watchCancelBehind cancels a watch that has a backlog: after the answer nothing
// comes of it.
func watchCancelBehind(t *testing.T, s *session) {
	from := s.revision() + 1
	for range 6 {
		s.commit(s.Txn(s.ctx).Then(backlog("unsynced")...))
	}
	w := s.rawWatch()
	if r := w.create(&pb.WatchCreateRequest{Key: []byte("unsynced"), RangeEnd: []byte("unsyncee"), StartRevision: from}); r.WatchId != 0 || !r.Created {
		t.Fatalf("created: %v", r)
	}
	w.cancel(0)
	for r := w.receive(); !r.Canceled; r = w.receive() {
		if r.WatchId != 0 || len(r.Events) == 0 {
			t.Errorf("before the answer: %v", r)
		}
	}
	last := s.revision()
	if r := w.create(&pb.WatchCreateRequest{Key: []byte("unsynced"), StartRevision: last + 1}); r.WatchId != 1 || !r.Created {
		t.Errorf("after the answer: %v", r)
	}
	s.put("unsynced", "v")
	if r := w.receive(); r.WatchId != 1 || len(r.Events) != 1 || r.Events[0].Kv.ModRevision != last+1 {
		t.Errorf("after the answer: %v", r)
	}
}

// watchers is how many watches all members of this process hold. TestWatch is not
// run beside other tests for its sake.
func watchers(t *testing.T) float64 {
	t.Helper()
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "etcd_debugging_mvcc_watcher_total" {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatal("etcd's gauge of watchers is not registered")
	return 0
}

// watchServerCancel: what a client has cancelled the member forgets, whether the
// watches share a stream, have one each, or are cancelled before they are made.
func watchServerCancel(t *testing.T, s *session) {
	keep := s.Watch(s.ctx, "server", clientv3.WithCreatedNotify())
	s.next(keep)
	settled := func(what string, want float64) {
		t.Helper()
		for got := watchers(t); got != want; got = watchers(t) {
			if s.ctx.Err() != nil {
				t.Fatalf("%s: the members hold %v watches, want %v", what, got, want)
			}
			s.get("server")
		}
	}
	// Those of earlier cases are on their way out.
	s.check("progress", s.RequestProgress(s.ctx))
	settled("before", 1)
	for name, on := range map[string]func(i int) context.Context{
		"one stream":  func(int) context.Context { return s.ctx },
		"own streams": func(i int) context.Context { return stream(s.ctx, i) },
	} {
		var cancels []context.CancelFunc
		for i := range 10 {
			ctx, cancel := context.WithCancel(on(i))
			cancels = append(cancels, cancel)
			s.next(s.Watch(ctx, "server", clientv3.WithCreatedNotify()))
		}
		settled(name, 11)
		for _, cancel := range cancels {
			cancel()
		}
		settled(name+", cancelled", 1)
	}
	for range 500 {
		ctx, cancel := context.WithCancel(s.ctx)
		s.Watch(ctx, "server")
		cancel()
	}
	settled("cancelled before they are made", 1)
}

// TestWatchReconnects cuts the connection of clients whose watches wait, run, are
// being made, or are being cancelled.
func TestWatchReconnects(t *testing.T) {
	t.Parallel()
	c := storetest.Start(t, 1, nil)
	c.Leader()
	for name, run := range map[string]func(t *testing.T, s *session, w *wire, other *session){
		"while it runs":                  reconnectRunning,
		"before it is made":              reconnectInit,
		"creation is told once":          reconnectCreated,
		"cancelled while it is cut off":  reconnectCancelled,
		"compacted while it was cut off": reconnectCompacted,
		"two thousand":                   reconnectThousands,
		"overlapping contexts":           reconnectContexts,
		"a hundred raw streams":          reconnectRaw,
	} {
		t.Run(name, func(t *testing.T) {
			s, w := wired(t, c)
			run(t, s, w, join(t, c))
		})
	}
}

func reconnectRunning(t *testing.T, s *session, w *wire, other *session) {
	watch := s.Watch(s.ctx, "run", clientv3.WithRev(s.revision()+1))
	for i := range 5 {
		w.drop()
		other.put("run", fmt.Sprint(i))
		if e := s.events(watch, 1)[0]; string(e.Kv.Value) != fmt.Sprint(i) {
			t.Errorf("event %d: %v", i, e)
		}
	}
}

func reconnectInit(t *testing.T, s *session, w *wire, _ *session) {
	from := s.put("init", "1").Header.Revision
	w.set(true)
	// The client's call waits until the watch is made.
	made := make(chan clientv3.WatchChan, 1)
	go func() { made <- s.Watch(s.ctx, "init", clientv3.WithRev(from)) }()
	w.set(false)
	if e := s.events(<-made, 1)[0]; e.Kv.ModRevision != from {
		t.Errorf("told %v", e)
	}
}

func reconnectCreated(t *testing.T, s *session, w *wire, other *session) {
	watch := s.Watch(s.ctx, "created", clientv3.WithCreatedNotify(), clientv3.WithRev(s.revision()+1))
	if r := s.next(watch); !r.Created {
		t.Errorf("first response %+v", r)
	}
	w.drop()
	other.put("created", "v")
	if r := s.next(watch); r.Created || len(r.Events) != 1 {
		t.Errorf("after the connection was lost: %+v", r)
	}
}

func reconnectCancelled(_ *testing.T, s *session, w *wire, _ *session) {
	ctx, cancel := context.WithCancel(s.ctx)
	watch := s.Watch(ctx, "cancel", clientv3.WithCreatedNotify())
	s.next(watch)
	w.set(true)
	cancel()
	s.closed(watch)
	w.set(false)
	s.get("cancel")
}

// reconnectCompacted: what was compacted while the client was away is not skipped
// in silence.
func reconnectCompacted(t *testing.T, s *session, w *wire, other *session) {
	watch := s.Watch(s.ctx, "compact", clientv3.WithCreatedNotify(), clientv3.WithRev(s.revision()+1))
	s.next(watch)
	w.set(true)
	var last int64
	for i := range 5 {
		last = other.put("compact", fmt.Sprint(i)).Header.Revision
	}
	_, err := other.Compact(other.ctx, last)
	s.check("compact", err)
	w.set(false)
	r := s.last(watch)
	if r.CompactRevision != last || !errors.Is(r.Err(), rpctypes.ErrCompacted) {
		t.Errorf("told %+v, error %v; want compacted at %d", r, r.Err(), last)
	}
	s.closed(watch)
}

func reconnectThousands(_ *testing.T, s *session, w *wire, _ *session) {
	ctx, cancel := context.WithCancel(s.ctx)
	watches := make([]clientv3.WatchChan, 2000)
	for i := range watches {
		watches[i] = s.Watch(ctx, "thousands")
	}
	w.drop()
	cancel()
	s.check("close", s.Close())
	for _, watch := range watches {
		s.closed(watch)
	}
}

func reconnectContexts(t *testing.T, s *session, w *wire, _ *session) {
	revision := s.put("overlap", "v").Header.Revision
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(stream(s.ctx, i%5))
			defer cancel()
			watch := s.Watch(ctx, "overlap", clientv3.WithRev(revision))
			w.drop()
			if r, ok := <-watch; !ok || r.Err() != nil || len(r.Events) != 1 {
				t.Errorf("watch %d: %+v %v", i, r, r.Err())
			}
		})
	}
	wg.Wait()
}

// reconnectRaw: streams that were made or half made when the connection ended all
// end with an error, and the member forgets them (goleak would find the rest).
func reconnectRaw(t *testing.T, s *session, w *wire, _ *session) {
	var wg sync.WaitGroup
	client := s.watches()
	for range 100 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(s.ctx)
			defer cancel()
			stream, err := client.Watch(ctx)
			if err != nil {
				return
			}
			_ = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("raw")}}})
			for err == nil {
				_, err = stream.Recv()
			}
		})
	}
	ended := make(chan struct{})
	go func() {
		wg.Wait()
		close(ended)
	}()
	// A stream may be opened after a connection was lost.
	for {
		w.drop()
		select {
		case <-ended:
			return
		case <-s.ctx.Done():
			t.Fatal("a stream whose connection was lost goes on")
		case <-time.After(20 * time.Millisecond):
		}
	}
}
