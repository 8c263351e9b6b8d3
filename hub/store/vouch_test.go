package store_test

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/etcdapi"
	"tripod.dev/tripod/hub/store/storetest"
)

// TestAReadThroughAFollowerOfThreeAsksOnlyTheLeader: and still sees what was
// acknowledged elsewhere just before. Of five, two are no majority.
func TestAReadThroughAFollowerOfThreeAsksOnlyTheLeader(t *testing.T) {
	for members, vouched := range map[int]bool{3: true, 5: false} {
		registries := map[string]*prometheus.Registry{}
		c := storetest.Start(t, members, func(s *store.Config, _ *etcdapi.Config) {
			registries[s.Name] = prometheus.NewRegistry()
			s.Registerer = registries[s.Name]
		})
		leader := c.Leader()
		ctx := patience(t)
		const reads = 20
		follower := c.Members[0]
		if follower == leader {
			follower = c.Members[1]
		}
		for range reads {
			put, err := c.Client(leader).Put(ctx, "key", "value")
			if err != nil {
				t.Fatal(err)
			}
			if err := follower.Store.Linearize(ctx); err != nil {
				t.Fatal(err)
			}
			if r := follower.Store.Revision(); r < put.Header.Revision {
				t.Fatalf("%d members: the read sees revision %d, after revision %d was acknowledged", members, r, put.Header.Revision)
			}
		}
		if got := confirmations(t, registries[leader.Name], "asker") >= reads; got != vouched {
			t.Errorf("%d members: the asker's word was enough: %v, want %v", members, got, vouched)
		}
	}
}

// confirmations counts those of linearizable reads that rest on by's word.
func confirmations(t *testing.T, g prometheus.Gatherer, by string) float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	n := 0.0
	for _, f := range families {
		if f.GetName() != "tripod_store_read_confirmations_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() == by {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}
