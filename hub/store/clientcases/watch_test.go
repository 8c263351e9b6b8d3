package clientcases_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/etcdapi"
	"tripod.dev/tripod/hub/store/storetest"
)

func TestWatch(t *testing.T) {
	c := storetest.Start(t, 3, func(s *store.Config, a *etcdapi.Config) {
		steady(s, a)
		a.ProgressInterval = 100 * time.Millisecond
	})
	for name, run := range map[string]func(*testing.T, *session){
		"ranges and revisions":            watchRanges,
		"ranges that are refused":         watchRefused,
		"what events say":                 watchEvents,
		"events of a transaction":         watchTransaction,
		"a write while it is made":        watchOverlap,
		"many of one stream":              watchMany,
		"streams of their own":            watchStreams,
		"filters":                         watchFilters,
		"previous values":                 watchPrevious,
		"fragments":                       watchFragments,
		"a compacted revision":            watchCompacted,
		"creation is told":                watchCreated,
		"progress is told by itself":      watchProgressNotify,
		"progress is told on request":     watchProgressRequest,
		"progress waits for the backlog":  watchProgressBehind,
		"cancelled at once":               watchCancelled,
		"cancelled while it runs":         watchCancelledRunning,
		"cancelled while it is behind":    watchCancelBehind,
		"contexts that overlap":           watchContexts,
		"closed with its client":          watchClosed,
		"closed as it is cancelled":       watchCloseCancelled,
		"half-closed streams go on":       watchHalfClosed,
		"identifiers of the client's own": watchIDs,
		"cancelled on the server":         watchServerCancel,
		"the whole key space":             watchAll,
	} {
		t.Run(name, func(t *testing.T) { everywhere(t, c, run) })
	}
}

// told lists events as "+key" or "-key".
func told(events []*clientv3.Event) []string {
	var out []string
	for _, e := range events {
		sign := map[bool]string{true: "-", false: "+"}[e.Type == clientv3.EventTypeDelete]
		out = append(out, sign+string(e.Kv.Key))
	}
	return out
}

// watchRanges starts watches before, among and after the writes; the last write
// of each range is the same, so that it ends every watch.
func watchRanges(t *testing.T, s *session) {
	s.delete("", clientv3.WithPrefix())
	base := s.revision()
	tests := map[string]struct {
		key  string
		opts []clientv3.OpOption
		want string
	}{
		"a key":                   {"b", nil, "+b -b +b"},
		"a range":                 {"a", []clientv3.OpOption{clientv3.WithRange("c")}, "+b +a +bb -b +b"},
		"a prefix":                {"b", []clientv3.OpOption{clientv3.WithPrefix()}, "+b +bb -b +b"},
		"from a key on":           {"b", []clientv3.OpOption{clientv3.WithFromKey()}, "+b +bb -b +c +b"},
		"the past":                {"b", []clientv3.OpOption{clientv3.WithRev(base + 1)}, "+b -b +b"},
		"a revision in the midst": {"b", []clientv3.OpOption{clientv3.WithRev(base + 3), clientv3.WithPrefix()}, "+bb -b +b"},
		"the future":              {"b", []clientv3.OpOption{clientv3.WithRev(base + 6)}, "+b"},
	}
	watches := map[string]clientv3.WatchChan{}
	start := func() {
		for name, test := range tests {
			// A later option takes the place of an earlier one.
			opts := append([]clientv3.OpOption{clientv3.WithRev(base + 1)}, test.opts...)
			watches[name] = s.Watch(s.ctx, test.key, opts...)
		}
	}
	check := func(when string) {
		for name, test := range tests {
			want := strings.Fields(test.want)
			events := s.events(watches[name], len(want))
			if diff := cmp.Diff(want, told(events)); diff != "" {
				t.Errorf("%s, made %s the writes (-want +got):\n%s", name, when, diff)
			}
			for i := 1; i < len(events); i++ {
				if events[i].Kv.ModRevision < events[i-1].Kv.ModRevision {
					t.Errorf("%s: revision %d after %d", name, events[i].Kv.ModRevision, events[i-1].Kv.ModRevision)
				}
			}
		}
	}
	start()
	s.put("b", "1")
	s.put("a", "1")
	s.put("bb", "1")
	s.delete("b")
	s.put("c", "1")
	s.put("b", "2")
	check("before")
	start()
	check("after")
}

func watchRefused(t *testing.T, s *session) {
	for name, test := range map[string]struct {
		key, end string
		want     string
	}{
		"an end that is the start":      {"a", "a", "mvcc: watcher range is empty"},
		"an end before the start":       {"b", "a", "mvcc: watcher range is empty"},
		"a revision that was never one": {"a", "", rpctypes.ErrCompacted.Error()},
	} {
		opts := []clientv3.OpOption{clientv3.WithRange(test.end)}
		if test.end == "" {
			opts = []clientv3.OpOption{clientv3.WithRev(-1)}
		}
		w := s.Watch(s.ctx, test.key, opts...)
		r := s.last(w)
		if !r.Canceled || r.Err() == nil || !strings.Contains(r.Err().Error(), test.want) {
			t.Errorf("%s: %+v, error %v, want %q", name, r, r.Err(), test.want)
		}
		s.closed(w)
	}
}

func watchEvents(t *testing.T, s *session) {
	s.delete("event", clientv3.WithPrefix())
	w := s.Watch(s.ctx, "event", clientv3.WithPrefix(), clientv3.WithRev(s.revision()+1))
	lease := s.grant(300)
	s.put("event", "1")
	s.put("event", "2")
	s.delete("event")
	s.put("event/leased", "3", clientv3.WithLease(lease))
	s.revoke(lease)
	type summary struct {
		Type              string
		Created, Changed  bool
		Key, Value        string
		Version, Created0 int64
		Lease             bool
	}
	want := []summary{
		{"PUT", true, false, "event", "1", 1, 1, false},
		{"PUT", false, true, "event", "2", 2, 1, false},
		{"DELETE", false, false, "event", "", 0, 0, false},
		{"PUT", true, false, "event/leased", "3", 1, 1, true},
		{"DELETE", false, false, "event/leased", "", 0, 0, false},
	}
	var got []summary
	for _, e := range s.events(w, len(want)) {
		got = append(got, summary{
			e.Type.String(), e.IsCreate(), e.IsModify(), string(e.Kv.Key), string(e.Kv.Value),
			e.Kv.Version, min(e.Kv.CreateRevision, 1), e.Kv.Lease != 0,
		})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// watchTransaction: the events of one revision come in one response, to a watch
// that is up to date and to one that reads the past.
func watchTransaction(t *testing.T, s *session) {
	s.delete("txn", clientv3.WithPrefix())
	base := s.revision()
	live := s.Watch(s.ctx, "txn", clientv3.WithPrefix(), clientv3.WithRev(base+1))
	for range 3 {
		var ops []clientv3.Op
		for i := range 3 {
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("txn%d", i), "v"))
		}
		s.commit(s.Txn(s.ctx).Then(ops...))
	}
	past := s.Watch(s.ctx, "txn", clientv3.WithPrefix(), clientv3.WithRev(base+1))
	for name, w := range map[string]clientv3.WatchChan{"live": live, "past": past} {
		var got []string
		for len(got) < 9 {
			r := s.next(w)
			if len(r.Events)%3 != 0 {
				t.Errorf("%s: %d events in a response, a revision is torn", name, len(r.Events))
			}
			for _, e := range r.Events {
				got = append(got, fmt.Sprintf("%s@%d", e.Kv.Key, e.Kv.ModRevision-base))
			}
		}
		want := strings.Fields("txn0@1 txn1@1 txn2@1 txn0@2 txn1@2 txn2@2 txn0@3 txn1@3 txn2@3")
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// watchOverlap makes watches from each of a row of revisions while they are
// written: none may miss or repeat one.
func watchOverlap(t *testing.T, s *session) {
	base := s.revision()
	const writes, watchers = 20, 20
	var wg sync.WaitGroup
	wg.Go(func() {
		for range writes {
			if _, err := s.Put(s.ctx, "overlap", "v"); err != nil {
				t.Errorf("put: %v", err)
				return
			}
		}
	})
	for i := range watchers {
		wg.Go(func() {
			from := base + 1 + int64(i%writes)
			w := s.Watch(s.ctx, "overlap", clientv3.WithRev(from))
			for next := from; next <= base+writes; {
				r, ok := <-w
				if !ok || r.Err() != nil {
					t.Errorf("watch from +%d: %v", from-base, r.Err())
					return
				}
				for _, e := range r.Events {
					if e.Kv.ModRevision != next {
						t.Errorf("watch from +%d: +%d came, want +%d", from-base, e.Kv.ModRevision-base, next-base)
					}
					next++
				}
			}
		})
	}
	wg.Wait()
}

func watchMany(t *testing.T, s *session) {
	base := s.revision()
	keys, prefixes := map[string]clientv3.WatchChan{}, []clientv3.WatchChan{}
	for i := range 10 {
		key := fmt.Sprintf("many%d", i)
		keys[key] = s.Watch(s.ctx, key, clientv3.WithRev(base+1))
		prefixes = append(prefixes, s.Watch(s.ctx, "many", clientv3.WithPrefix(), clientv3.WithRev(base+1)))
	}
	for i := range 10 {
		s.put(fmt.Sprintf("many%d", i), "v")
	}
	for key, w := range keys {
		if r := s.next(w); len(r.Events) != 1 || string(r.Events[0].Kv.Key) != key {
			t.Errorf("%s was told %v", key, told(r.Events))
		}
	}
	for _, w := range prefixes {
		if got := strings.Join(told(s.events(w, 10)), " "); got != "+many0 +many1 +many2 +many3 +many4 +many5 +many6 +many7 +many8 +many9" {
			t.Errorf("a prefix was told %s", got)
		}
	}
}

func watchStreams(t *testing.T, s *session) {
	base := s.revision()
	var watches []clientv3.WatchChan
	for i := range 10 {
		watches = append(watches, s.Watch(stream(s.ctx, i), "stream", clientv3.WithRev(base+1)))
	}
	s.put("stream", "v")
	for i, w := range watches {
		if r := s.next(w); len(r.Events) != 1 || r.Events[0].Kv.ModRevision != base+1 {
			t.Errorf("stream %d was told %v", i, r)
		}
	}
}

func watchFilters(t *testing.T, s *session) {
	s.delete("filter")
	from := clientv3.WithRev(s.revision() + 1)
	for range 2 {
		s.put("filter", "v")
		s.delete("filter")
	}
	for name, test := range map[string]struct {
		opts []clientv3.OpOption
		want string
	}{
		"none":       {nil, "+filter -filter +filter -filter"},
		"no puts":    {[]clientv3.OpOption{clientv3.WithFilterPut()}, "-filter -filter"},
		"no deletes": {[]clientv3.OpOption{clientv3.WithFilterDelete()}, "+filter +filter"},
	} {
		want := strings.Fields(test.want)
		w := s.Watch(s.ctx, "filter", append(test.opts, from)...)
		if diff := cmp.Diff(want, told(s.events(w, len(want)))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func watchPrevious(t *testing.T, s *session) {
	s.delete("previous")
	from := clientv3.WithRev(s.revision() + 1)
	with := s.Watch(s.ctx, "previous", from, clientv3.WithPrevKV())
	without := s.Watch(s.ctx, "previous", from)
	s.put("previous", "1")
	s.put("previous", "2")
	s.delete("previous")
	var got []string
	for _, e := range s.events(with, 3) {
		if e.PrevKv == nil {
			e.PrevKv = &mvccpb.KeyValue{}
		}
		got = append(got, string(e.PrevKv.Value))
	}
	if diff := cmp.Diff([]string{"", "1", "2"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, e := range s.events(without, 3) {
		if e.PrevKv != nil {
			t.Errorf("a previous value that nobody asked for: %v", e)
		}
	}
}

// watchFragments: more events of one revision than a request may hold come whole
// to the client, in fragments or at once.
func watchFragments(t *testing.T, s *session) {
	from := clientv3.WithRev(s.revision() + 1)
	const keys = 10
	for i := range keys {
		s.put(fmt.Sprintf("fragment%d", i), strings.Repeat("v", 300*1024))
	}
	for name, opts := range map[string][]clientv3.OpOption{"fragments": {clientv3.WithFragment()}, "whole": nil} {
		w := s.Watch(s.ctx, "fragment", append(opts, from, clientv3.WithPrefix())...)
		r := s.next(w)
		if len(r.Events) != keys {
			t.Errorf("%s: the client joined %d events, want %d", name, len(r.Events), keys)
		}
	}
	s.delete("fragment", clientv3.WithPrefix())
}

func watchCompacted(t *testing.T, s *session) {
	first := s.put("compacted", "1").Header.Revision
	last := s.put("compacted", "2").Header.Revision
	w := s.Watch(s.ctx, "compacted", clientv3.WithRev(last+1), clientv3.WithCreatedNotify())
	s.next(w)
	_, err := s.Compact(s.ctx, last)
	s.check("compact", err)
	late := s.Watch(s.ctx, "compacted", clientv3.WithRev(first))
	r := s.last(late)
	if r.CompactRevision != last || !r.Canceled || r.Err() != rpctypes.ErrCompacted { //nolint:errorlint // clients compare it so
		t.Errorf("watch of revision %d, compacted at %d: %+v, error %v", first, last, r, r.Err())
	}
	s.closed(late)
	again := s.Watch(s.ctx, "compacted", clientv3.WithRev(last))
	if e := s.events(again, 1)[0]; e.Kv.ModRevision != last {
		t.Errorf("the compacted revision itself told %v", e)
	}
	s.put("compacted", "3")
	if e := s.events(w, 1)[0]; string(e.Kv.Value) != "3" {
		t.Errorf("the compaction disturbed a watch that was not behind: %v", e)
	}
}

func watchCreated(t *testing.T, s *session) {
	revision := s.revision()
	w := s.Watch(s.ctx, "created", clientv3.WithCreatedNotify())
	if r := s.next(w); !r.Created || len(r.Events) != 0 || r.Header.Revision < revision {
		t.Errorf("first response %+v", r)
	}
	silent := s.Watch(s.ctx, "created", clientv3.WithRev(revision+1))
	s.put("created", "v")
	if r := s.next(silent); r.Created || len(r.Events) != 1 {
		t.Errorf("a watch that did not ask: %+v", r)
	}
}

func watchCancelled(t *testing.T, s *session) {
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	s.closed(s.Watch(ctx, "cancel"))
	// A context that ends while the stream is opened.
	ctx, cancel = context.WithCancel(stream(s.ctx, 1))
	w := s.Watch(ctx, "cancel")
	cancel()
	s.closed(w)
	if alive := s.Watch(s.ctx, "cancel", clientv3.WithCreatedNotify()); !s.next(alive).Created {
		t.Error("no watch can be made after one was cancelled")
	}
}

func watchCancelledRunning(t *testing.T, s *session) {
	base := s.revision()
	keep := s.Watch(s.ctx, "running", clientv3.WithRev(base+1))
	ctx, cancel := context.WithCancel(s.ctx)
	w := s.Watch(ctx, "running", clientv3.WithRev(base+1))
	s.put("running", "1")
	s.events(w, 1)
	s.events(keep, 1)
	cancel()
	s.closed(w)
	s.put("running", "2")
	if e := s.events(keep, 1)[0]; string(e.Kv.Value) != "2" {
		t.Errorf("the other watch of the stream was told %v", e)
	}
}

// watchContexts cancels watches of a few streams while others are made on them.
func watchContexts(t *testing.T, s *session) {
	s.put("contexts", "v")
	revision := s.revision()
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(stream(s.ctx, i%5))
			defer cancel()
			r, ok := <-s.Watch(ctx, "contexts", clientv3.WithRev(revision))
			if !ok || r.Err() != nil || len(r.Events) != 1 {
				t.Errorf("watch %d: %+v %v", i, r, r.Err())
			}
		})
	}
	wg.Wait()
}

func watchClosed(_ *testing.T, s *session) {
	w := s.Watch(s.ctx, "close", clientv3.WithCreatedNotify())
	s.next(w)
	pending := s.Watch(stream(s.ctx, 1), "close")
	s.check("close", s.Watcher.Close())
	s.closed(w)
	s.closed(pending)
	s.closed(s.Watch(s.ctx, "close"))
}

func watchCloseCancelled(t *testing.T, s *session) {
	ctx, cancel := context.WithCancel(s.ctx)
	w := s.Watch(ctx, "close")
	var wg sync.WaitGroup
	wg.Go(cancel)
	wg.Go(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	wg.Wait()
	s.closed(w)
}

func watchAll(t *testing.T, s *session) {
	from := s.revision() + 1
	all, prefix := s.Watch(s.ctx, "", clientv3.WithFromKey(), clientv3.WithRev(from)), s.Watch(s.ctx, "", clientv3.WithPrefix(), clientv3.WithRev(from))
	s.put("\x00", "first")
	s.put("\xff\xff", "last")
	for name, w := range map[string]clientv3.WatchChan{"from": all, "prefix": prefix} {
		if diff := cmp.Diff([]string{"+\x00", "+\xff\xff"}, told(s.events(w, 2))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
