package clientcases_test

import (
	"fmt"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func watchProgressNotify(t *testing.T, s *session) {
	// A watch that starts in the future is told nothing before.
	from := s.put("elsewhere", "v").Header.Revision
	w := s.Watch(s.ctx, "progress", clientv3.WithProgressNotify(), clientv3.WithRev(from))
	plain := s.Watch(s.ctx, "progress", clientv3.WithRev(from))
	if r := s.next(w); !r.IsProgressNotify() || r.Header.Revision < from || r.Header.Revision == 0 {
		t.Errorf("without any event: %+v", r)
	}
	written := s.put("progress", "v").Header.Revision
	seen := false
	for told := int64(0); told < written; {
		r := s.next(w)
		seen = seen || len(r.Events) > 0
		if r.IsProgressNotify() {
			told = r.Header.Revision
		}
	}
	if !seen {
		t.Error("progress was told before the event")
	}
	other := s.put("elsewhere", "v").Header.Revision
	for r := s.next(w); r.Header.Revision < other; r = s.next(w) {
		if !r.IsProgressNotify() {
			t.Errorf("an event of nothing: %+v", r)
		}
	}
	s.put("progress", "v")
	if r := s.next(plain); len(r.Events) == 0 {
		t.Errorf("a watch that did not ask: %+v", r)
	}
}

func watchProgressRequest(t *testing.T, s *session) {
	var watches []clientv3.WatchChan
	for i := range 3 {
		watches = append(watches, s.Watch(s.ctx, fmt.Sprintf("request%d", i), clientv3.WithCreatedNotify()))
	}
	for _, w := range watches {
		s.next(w)
	}
	written := s.put("elsewhere", "v").Header.Revision
	s.check("request", s.RequestProgress(s.ctx))
	for i, w := range watches {
		if r := s.next(w); !r.IsProgressNotify() || r.Header.Revision < written {
			t.Errorf("watch %d of the stream: %+v, want progress of %d at least", i, r, written)
		}
	}
}

// backlog puts a hundred keys of a prefix.
func backlog(prefix string) (puts []clientv3.Op) {
	for i := range 100 {
		puts = append(puts, clientv3.OpPut(fmt.Sprintf("%s%d", prefix, i), "v"))
	}
	return puts
}

// watchProgressBehind: no progress is told over what a watch has not been told.
func watchProgressBehind(t *testing.T, s *session) {
	from := s.revision() + 1
	for range 6 {
		s.commit(s.Txn(s.ctx).Then(backlog("behind")...))
	}
	last := s.put("behind", "last").Header.Revision
	w := s.Watch(s.ctx, "behind", clientv3.WithPrefix(), clientv3.WithRev(from))
	s.check("request", s.RequestProgress(s.ctx))
	for events := 0; events < 601; {
		r := s.next(w)
		events += len(r.Events)
		if r.IsProgressNotify() && r.Header.Revision >= from && events < 601 {
			t.Fatalf("progress of %d was told after %d of 601 events", r.Header.Revision, events)
		}
	}
	s.check("request", s.RequestProgress(s.ctx))
	if r := s.next(w); !r.IsProgressNotify() || r.Header.Revision < last {
		t.Errorf("after the backlog: %+v, want progress of %d at least", r, last)
	}
}
