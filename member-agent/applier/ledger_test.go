package applier

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

func key(name string) *agentv1.ObjectKey {
	return &agentv1.ObjectKey{ApiVersion: "v1", Kind: "ConfigMap", Namespace: "pay", Name: name}
}

func wish(name string, revision int64) *agentv1.DesiredObject {
	return &agentv1.DesiredObject{Key: key(name), Revision: revision, Placement: "pay/ledger", Manifest: manifest(name, 1, revision)}
}

func grave(name string, revision int64) *agentv1.Burial {
	return &agentv1.Burial{Key: key(name), Revision: revision, Tombstone: "pay/" + name}
}

func state(incarnation uint64, revision int64, parts ...any) *agentv1.DesiredState {
	s := &agentv1.DesiredState{Incarnation: incarnation, Revision: revision, Complete: true}
	for _, p := range parts {
		switch p := p.(type) {
		case *agentv1.DesiredObject:
			s.Objects = append(s.Objects, p)
		case *agentv1.Burial:
			s.Burials = append(s.Burials, p)
		}
	}
	return s
}

func partial(s *agentv1.DesiredState) *agentv1.DesiredState {
	s.Complete = false
	return s
}

func TestMerge(t *testing.T) {
	type line struct {
		Revision int64
		Buried   bool
	}
	tests := map[string]struct {
		states []*agentv1.DesiredState
		want   map[string]line
	}{
		"the higher revision of an object stands, whatever the order of arrival": {
			[]*agentv1.DesiredState{state(1, 9, wish("a", 8)), state(1, 7, wish("a", 5))},
			map[string]line{"a": {8, false}},
		},
		"a higher incarnation stands over a higher revision": {
			[]*agentv1.DesiredState{state(1, 90, wish("a", 80)), state(2, 7, wish("a", 5))},
			map[string]line{"a": {5, false}},
		},
		"a lower incarnation is refused whole": {
			[]*agentv1.DesiredState{state(2, 7, wish("a", 5)), state(1, 90, wish("a", 80), grave("b", 85))},
			map[string]line{"a": {5, false}},
		},
		"a burial stands over the object it buries": {
			[]*agentv1.DesiredState{state(1, 9, wish("a", 8)), state(1, 10, grave("a", 10))},
			map[string]line{"a": {10, true}},
		},
		"an older burial is refused": {
			[]*agentv1.DesiredState{state(1, 9, wish("a", 8)), partial(state(1, 9, grave("a", 7)))},
			map[string]line{"a": {8, false}},
		},
		"a member that lags does not revive what was buried": {
			[]*agentv1.DesiredState{state(1, 10, grave("a", 10)), state(1, 11), state(1, 9, wish("a", 8))},
			map[string]line{},
		},
		"a member that lags still brings news of what is known": {
			[]*agentv1.DesiredState{state(1, 12, wish("a", 4)), partial(state(1, 10, wish("a", 9)))},
			map[string]line{"a": {9, false}},
		},
		"an empty complete state lets go and buries nothing": {
			[]*agentv1.DesiredState{state(1, 9, wish("a", 8)), state(1, 10)},
			map[string]line{},
		},
		"an incomplete state lets nothing go": {
			[]*agentv1.DesiredState{state(1, 9, wish("a", 8)), partial(state(1, 10))},
			map[string]line{"a": {8, false}},
		},
		"an object in another version of its API is the same object": {
			[]*agentv1.DesiredState{
				state(1, 9, &agentv1.DesiredObject{Key: &agentv1.ObjectKey{ApiVersion: "apps/v1beta1", Kind: "D", Name: "a"}, Revision: 8}),
				state(1, 10, &agentv1.DesiredObject{Key: &agentv1.ObjectKey{ApiVersion: "apps/v1", Kind: "D", Name: "a"}, Revision: 9}),
			},
			map[string]line{"a": {9, false}},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l := newLedger(Seen{})
			for _, s := range test.states {
				l.merge(s)
			}
			got := map[string]line{}
			for id, o := range l.orders {
				got[id.name] = line{o.seen.Revision, o.tombstone != ""}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A history is what the hub committed; members replay it, each at its own pace.
func TestOnlyACommittedTombstoneBuries(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		history := []*agentv1.DesiredState{state(1, 1)}
		alive, dead := map[string]int64{}, map[string]int64{}
		ever := map[string]bool{}
		for i := range rapid.IntRange(1, 20).Draw(t, "steps") {
			at := int64(i + 2)
			name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "object")
			if _, is := alive[name]; is && rapid.Bool().Draw(t, "bury") {
				delete(alive, name)
				dead[name], ever[name] = at, true
			} else {
				delete(dead, name)
				alive[name] = at
			}
			s := state(1, at)
			for n, r := range alive {
				s.Objects = append(s.Objects, wish(n, r))
			}
			for n, r := range dead {
				s.Burials = append(s.Burials, grave(n, r))
			}
			history = append(history, s)
		}
		l := newLedger(Seen{})
		at := [3]int{}
		for range rapid.IntRange(1, 40).Draw(t, "deliveries") {
			member := rapid.IntRange(0, 2).Draw(t, "member")
			at[member] = rapid.IntRange(at[member], len(history)-1).Draw(t, "position")
			l.merge(history[at[member]])
			for id, o := range l.orders {
				if o.tombstone != "" && !ever[id.name] {
					t.Fatalf("%s is buried and no tombstone was ever committed for it", id.name)
				}
			}
		}
		// Whatever came before, the newest state leaves exactly what it says.
		last := history[len(history)-1]
		l.merge(last)
		if len(l.orders) != len(last.Objects)+len(last.Burials) {
			t.Fatalf("%d orders stand, the newest state has %d", len(l.orders), len(last.Objects)+len(last.Burials))
		}
		for _, o := range last.Objects {
			if got := l.orders[identityOf(o.Key)]; got.tombstone != "" || got.seen.Revision != o.Revision {
				t.Fatalf("%s stands at %+v, the newest state says %d", o.Key.Name, got.seen, o.Revision)
			}
		}
	})
}
