package clientcases_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	recipe "go.etcd.io/etcd/client/v3/experimental/recipes"

	"tripod.dev/tripod/hub/store/storetest"
)

// TestCoordination runs etcd's experimental recipes. They take no context: one
// that blocks ends with the time of the whole package.
func TestCoordination(t *testing.T) {
	t.Parallel()
	c := storetest.Start(t, 3, steady)
	for name, run := range map[string]func(*testing.T, *session){
		"a barrier":                          coordinateBarrier,
		"a double barrier":                   coordinateDoubleBarrier,
		"a queue":                            coordinateQueue,
		"a queue of many":                    coordinateQueueOfMany,
		"a queue by priority":                coordinatePriorities,
		"a mutex of readers and writers":     coordinateReaders,
		"a mutex whose next in line is gone": coordinateVictim,
	} {
		t.Run(name, func(t *testing.T) { everywhere(t, c, run) })
	}
}

// own is a key that no other member's run of the case has.
func (s *session) own(key string) string { return key + " " + s.member.Name }

// waiting returns when n keys are under a prefix.
func (s *session) waiting(prefix string, n int64) {
	s.t.Helper()
	for s.get(prefix, clientv3.WithPrefix(), clientv3.WithCountOnly()).Count != n {
		if s.ctx.Err() != nil {
			s.t.Fatalf("there are not %d keys under %s", n, prefix)
		}
	}
}

func coordinateBarrier(t *testing.T, s *session) {
	b := recipe.NewBarrier(s.Client, s.own("barrier"))
	s.check("hold", b.Hold())
	if err := recipe.NewBarrier(s.Client, s.own("barrier")).Hold(); !errors.Is(err, recipe.ErrKeyExists) {
		t.Errorf("held twice: %v", err)
	}
	var released atomic.Bool
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			if err := recipe.NewBarrier(s.Client, s.own("barrier")).Wait(); err != nil || !released.Load() {
				t.Errorf("through the barrier, released %v: %v", released.Load(), err)
			}
		})
	}
	released.Store(true)
	s.check("release", b.Release())
	wg.Wait()
	s.check("wait for nobody", b.Wait())
}

// coordinateDoubleBarrier: nobody is in before all are, and nobody out; one of
// them does not leave but ends its session.
func coordinateDoubleBarrier(t *testing.T, s *session) {
	const count = 5
	mortal, session := s.concurrency(), s.concurrency()
	defer session.Close()
	var entering, leaving atomic.Int32
	var in, out sync.WaitGroup
	proceed := make(chan struct{})
	in.Add(count)
	for i := range count {
		holder := session
		if i == 0 {
			holder = mortal
		}
		out.Go(func() {
			b := recipe.NewDoubleBarrier(holder, s.own("double"), count)
			entering.Add(1)
			if err := b.Enter(); err != nil || entering.Load() != count {
				t.Errorf("entered with %d: %v", entering.Load(), err)
			}
			in.Done()
			<-proceed
			leaving.Add(1)
			end := b.Leave
			if holder == mortal {
				end = mortal.Close
			}
			if err := end(); err != nil || holder != mortal && leaving.Load() != count {
				t.Errorf("left with %d: %v", leaving.Load(), err)
			}
		})
	}
	in.Wait()
	if err := recipe.NewDoubleBarrier(session, s.own("double"), count).Enter(); !errors.Is(err, recipe.ErrTooManyClients) {
		t.Errorf("one too many: %v", err)
	}
	close(proceed)
	out.Wait()
}

func coordinateQueue(t *testing.T, s *session) {
	q := recipe.NewQueue(s.Client, s.own("queue"))
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 5 {
			if err := q.Enqueue(fmt.Sprint(i)); err != nil {
				t.Errorf("enqueue: %v", err)
			}
		}
	})
	for i := range 5 {
		if v, err := q.Dequeue(); err != nil || v != fmt.Sprint(i) {
			t.Errorf("item %d is %q, error %v", i, v, err)
		}
	}
	wg.Wait()
}

// coordinateQueueOfMany: each item goes to one reader.
func coordinateQueueOfMany(t *testing.T, s *session) {
	const writers, readers, each = 3, 3, 4
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for j := range each {
				if err := recipe.NewQueue(s.Client, s.own("many")).Enqueue(fmt.Sprint(i*each + j)); err != nil {
					t.Errorf("enqueue: %v", err)
				}
			}
		})
	}
	items := make(chan string, writers*each)
	for range readers {
		wg.Go(func() {
			for range writers * each / readers {
				v, err := recipe.NewQueue(s.Client, s.own("many")).Dequeue()
				if err != nil {
					t.Errorf("dequeue: %v", err)
				}
				items <- v
			}
		})
	}
	wg.Wait()
	close(items)
	taken := map[string]int{}
	for v := range items {
		taken[v]++
	}
	for i := range writers * each {
		if taken[fmt.Sprint(i)] != 1 {
			t.Errorf("item %d was taken %d times", i, taken[fmt.Sprint(i)])
		}
	}
}

func coordinatePriorities(t *testing.T, s *session) {
	q := recipe.NewPriorityQueue(s.Client, s.own("priorities"))
	for i, priority := range []uint16{2, 0, 1, 0, 2} {
		s.check("enqueue", q.Enqueue(fmt.Sprintf("%d/%d", priority, i), priority))
	}
	var got []string
	for range 5 {
		v, err := q.Dequeue()
		s.check("dequeue", err)
		got = append(got, v)
	}
	if want := strings.Fields("0/1 0/3 1/2 2/0 2/4"); !slices.Equal(got, want) {
		t.Errorf("dequeued %v, want %v", got, want)
	}
}

// coordinateReaders: readers share; a writer waits for all of them, and a reader
// that comes after it waits for it.
func coordinateReaders(t *testing.T, s *session) {
	session := s.concurrency()
	defer session.Close()
	key := s.own("readers")
	one, two := recipe.NewRWMutex(session, key), recipe.NewRWMutex(session, key)
	s.check("lock for reading", one.RLock())
	s.check("lock for reading too", two.RLock())
	var read, written atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		writer := recipe.NewRWMutex(session, key)
		if err := writer.Lock(); err != nil || !read.Load() {
			t.Errorf("locked for writing, readers are done %v: %v", read.Load(), err)
		}
		written.Store(true)
		if err := writer.Unlock(); err != nil {
			t.Errorf("unlock: %v", err)
		}
	})
	s.waiting(key+"/", 3)
	wg.Go(func() {
		late := recipe.NewRWMutex(session, key)
		if err := late.RLock(); err != nil || !written.Load() {
			t.Errorf("locked for reading, the writer is done %v: %v", written.Load(), err)
		}
		if err := late.RUnlock(); err != nil {
			t.Errorf("unlock: %v", err)
		}
	})
	s.waiting(key+"/", 4)
	s.check("unlock", one.RUnlock())
	read.Store(true)
	s.check("unlock", two.RUnlock())
	wg.Wait()
}

// coordinateVictim: when the next in line loses its session, the one after it
// goes on waiting for the holder.
func coordinateVictim(t *testing.T, s *session) {
	key := s.own("line")
	first, victim, second := s.concurrency(), s.concurrency(), s.concurrency()
	defer first.Close()
	defer second.Close()
	holder := concurrency.NewMutex(first, key)
	s.check("lock", holder.Lock(s.ctx))
	s.check("lock again in the same session", concurrency.NewMutex(first, key).Lock(s.ctx))
	var released atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := concurrency.NewMutex(victim, key).Lock(s.ctx); !errors.Is(err, concurrency.ErrSessionExpired) {
			t.Errorf("lock of a session that is closed: %v", err)
		}
	})
	s.waiting(key, 2)
	wg.Go(func() {
		if err := concurrency.NewMutex(second, key).Lock(s.ctx); err != nil || !released.Load() {
			t.Errorf("locked, the holder is done %v: %v", released.Load(), err)
		}
	})
	s.waiting(key, 3)
	s.check("close", victim.Close())
	s.waiting(key, 2)
	released.Store(true)
	s.check("unlock", holder.Unlock(s.ctx))
	wg.Wait()
}
