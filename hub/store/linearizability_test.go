package store_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	clientv3 "go.etcd.io/etcd/client/v3"

	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/etcdapi"
	"tripod.dev/tripod/hub/store/storetest"
)

// registerInput is one operation on one key; value 0 means the key is absent.
type registerInput struct {
	key   string
	write bool
	value int
}

// register is a key that is written and read. The output of a write does not
// matter; one whose outcome is unknown never returns.
var register = porcupine.Model{
	Init: func() any { return 0 },
	Step: func(state, input, output any) (bool, any) {
		in := input.(registerInput)
		if in.write {
			return true, in.value
		}
		return output.(int) == state.(int), state
	},
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, o := range history {
			key := o.Input.(registerInput).key
			byKey[key] = append(byKey[key], o)
		}
		var out [][]porcupine.Operation
		for _, o := range byKey {
			out = append(out, o)
		}
		return out
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %v", input, output) },
}

// recorder collects what clients did.
type recorder struct {
	start time.Time
	mu    sync.Mutex
	ops   []porcupine.Operation
	next  int
}

func (r *recorder) now() int64 { return int64(time.Since(r.start)) }

func (r *recorder) value() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next++
	return r.next
}

func (r *recorder) add(client int, in registerInput, out any, call int64, known bool) {
	ret := r.now()
	if !known {
		// It may take effect at any time, or never.
		ret = 1 << 62
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out, Return: ret})
}

// work runs one client against one member until ctx is done.
func (r *recorder) work(ctx context.Context, id int, client *clientv3.Client, read ...clientv3.OpOption) {
	for ctx.Err() == nil {
		key := fmt.Sprintf("k%d", rand.IntN(3))
		attempt, cancel := context.WithTimeout(ctx, 700*time.Millisecond)
		call := r.now()
		if rand.IntN(2) == 0 {
			in := registerInput{key: key, write: true, value: r.value()}
			_, err := client.Put(attempt, key, fmt.Sprint(in.value))
			r.add(id, in, nil, call, err == nil)
		} else if got, err := client.Get(attempt, key, read...); err == nil {
			var value int
			if len(got.Kvs) > 0 {
				_, _ = fmt.Sscan(string(got.Kvs[0].Value), &value)
			}
			r.add(id, registerInput{key: key}, value, call, true)
		}
		cancel()
	}
}

// history runs clients on every member while faults happen, and returns what
// they saw.
func history(t *testing.T, read ...clientv3.OpOption) []porcupine.Operation {
	c := storetest.Start(t, 3, func(s *store.Config, _ *etcdapi.Config) { s.RequestTimeout = time.Second })
	c.Leader()
	r := &recorder{start: time.Now()}
	ctx, stop := context.WithCancel(patience(t))
	var wg sync.WaitGroup
	for i := range 9 {
		client := c.Client(c.Members[i%3])
		wg.Go(func() { r.work(ctx, i, client, read...) })
	}
	faults := []func(){
		func() { l := c.Leader(); c.Network.Cut([]string{l.Name}, names(c.Members, l)) },
		func() { l := c.Leader(); c.Network.Silence([]string{l.Name}, names(c.Members, l)) },
		func() { f := c.Follower(); c.Network.Cut([]string{f.Name}, names(c.Members, f)) },
		func() { m := c.Leader(); m.Stop(); m.Start() },
		func() { _ = c.Leader().Store.Membership().Transfer(ctx, c.Follower().Name) },
	}
	for _, fault := range faults {
		fault()
		// How long a fault lasts is part of the schedule, not a wait for a condition.
		<-time.After(800 * time.Millisecond)
		c.Network.Heal()
		c.Leader()
	}
	c.Eventually("there is enough history to show something", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.ops) > 300
	})
	stop()
	wg.Wait()
	return r.ops
}

func check(t *testing.T, ops []porcupine.Operation) porcupine.CheckResult {
	t.Helper()
	reads, unknown := 0, 0
	for _, o := range ops {
		if !o.Input.(registerInput).write {
			reads++
		} else if o.Return == 1<<62 {
			unknown++
		}
	}
	t.Logf("%d operations, %d reads, %d writes of unknown outcome", len(ops), reads, unknown)
	return porcupine.CheckOperationsTimeout(register, ops, time.Minute)
}

func TestHistoriesAreLinearizable(t *testing.T) {
	if result := check(t, history(t)); result != porcupine.Ok {
		t.Fatalf("checker says %s", result)
	}
}

// TestStaleReadsAreCaught shows the checker the bug it is there for: reads that
// are not confirmed by the leader.
func TestStaleReadsAreCaught(t *testing.T) {
	for range 5 {
		if check(t, history(t, clientv3.WithSerializable())) == porcupine.Illegal {
			return
		}
	}
	t.Fatal("the checker accepts five histories with stale reads")
}
