package traffic

import (
	"context"
	"math/rand/v2"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"tripod.dev/tripod/test/robustness/model"
)

// collect watches everything on one member from the beginning. When its watch
// breaks it goes on after what it was told last.
func (t *Traffic) collect(ctx context.Context, member string, c *clientv3.Client) {
	next := int64(1)
	for ctx.Err() == nil {
		watching, stop := context.WithCancel(ctx)
		asking := time.AfterFunc(time.Second, func() { _ = c.RequestProgress(watching) })
		w := t.watch(watching, member, c, "", next, func(r model.WatchResponse) {
			for _, e := range r.Events {
				next = e.Item.Modified + 1
			}
			if r.Progress {
				next = max(next, r.Revision+1)
			}
			t.recorder.collected(member, next-1)
			asking.Reset(time.Second)
		})
		asking.Stop()
		stop()
		t.recorder.note(func(h *model.History) { h.Watches = append(h.Watches, w) })
		rest(ctx, 50*time.Millisecond)
	}
}

// browse watches pieces of the past on one member, for a while each.
func (t *Traffic) browse(ctx context.Context, random *rand.Rand, member string, c *clientv3.Client) {
	for rest(ctx, 100*time.Millisecond) {
		told, compacted := t.recorder.known()
		if told < 2 {
			continue
		}
		prefix := []string{"", Registers, Registers + "3", Leased}[random.IntN(4)]
		var from int64
		if lowest := max(compacted-20, 1); random.IntN(5) > 0 && lowest <= told {
			from = lowest + random.Int64N(told-lowest+1)
		}
		watching, stop := context.WithTimeout(ctx, time.Duration(200+random.IntN(1500))*time.Millisecond)
		w := t.watch(watching, member, c, prefix, from, func(model.WatchResponse) {})
		stop()
		t.recorder.note(func(h *model.History) { h.Watches = append(h.Watches, w) })
	}
}

// watch returns what one watch said until ctx is done or it broke. The client
// resumes it by itself over what it takes for passing.
func (t *Traffic) watch(ctx context.Context, member string, c *clientv3.Client, prefix string, from int64, told func(model.WatchResponse)) model.Watch {
	w := model.Watch{Member: member, Prefix: prefix, From: from}
	responses := c.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(from), clientv3.WithCreatedNotify(), clientv3.WithProgressNotify())
	for r := range responses {
		response := model.WatchResponse{
			At: t.recorder.now(), Revision: r.Header.Revision, Created: r.Created, Progress: r.IsProgressNotify(), Compacted: r.CompactRevision,
		}
		for _, e := range r.Events {
			response.Events = append(response.Events, model.Event{Item: item(e.Kv), Deleted: e.Type == clientv3.EventTypeDelete})
		}
		w.Responses = append(w.Responses, response)
		told(response)
		if err := r.Err(); err != nil {
			w.Error = err.Error()
		}
	}
	return w
}
