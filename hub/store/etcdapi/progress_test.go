package etcdapi_test

import (
	"context"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/etcdapi"
	"tripod.dev/tripod/hub/store/storetest"
)

// watchers is how many there are in this process.
func watchers(t *testing.T) int {
	t.Helper()
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "etcd_debugging_mvcc_watcher_total" {
			return int(family.GetMetric()[0].GetGauge().GetValue())
		}
	}
	t.Fatal("etcd does not count its watchers")
	return 0
}

// A progress that a client asks for is told to all watches that it knows. One that is
// created while the stream is busy must not be told that it has come further than it
// has: the robustness suite saw its events after that, and a client that resumes
// there would never have been told them.
func TestProgressOfAStreamIsNotThatOfAWatchCreatedLater(t *testing.T) {
	type hold struct{ begun, end chan struct{} }
	holds := make(chan hold, 1)
	c := storetest.Start(t, 1, func(_ *store.Config, api *etcdapi.Config) {
		api.Fail = func(p store.Point) error {
			if p != store.BeforeWatchSend {
				return nil
			}
			select {
			case h := <-holds:
				close(h.begun)
				<-h.end
			default:
			}
			return nil
		}
	})
	client := c.Client(c.Leader())
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	put := func(key string) {
		t.Helper()
		_, err := client.Put(t.Context(), key, "v")
		must(err)
	}
	put("past")
	// What is sent first of what waits is up to chance.
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := pb.NewWatchClient(client.ActiveConnection()).Watch(ctx)
		must(err)
		create := func(key string, from int64) {
			must(stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{
				CreateRequest: &pb.WatchCreateRequest{Key: []byte(key), StartRevision: from}}}))
		}
		create("now", 0)
		first, err := stream.Recv()
		must(err)
		h := hold{make(chan struct{}), make(chan struct{})}
		holds <- h
		put("now")
		<-h.begun
		before := watchers(t)
		must(stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}))
		create("past", 1)
		c.Eventually("the second watch is created", func() bool { return watchers(t) > before })
		close(h.end)
		for created := false; ; {
			response, err := stream.Recv()
			must(err)
			switch {
			case response.GetCreated():
				created = true
			case response.GetWatchId() == clientv3.InvalidWatchID && created:
				t.Fatalf("told all watches that they have come to %d, and %q has not", response.GetHeader().GetRevision(), "past")
			}
			if response.GetWatchId() != first.GetWatchId() && len(response.GetEvents()) > 0 {
				break
			}
		}
		alone := watchers(t) - 2
		cancel()
		c.Eventually("the stream is over", func() bool { return watchers(t) == alone })
	}
}
