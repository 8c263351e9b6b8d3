package delta

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

func observation(name, state string) *agentv1.DatasetObservation {
	return &agentv1.DatasetObservation{Dataset: &agentv1.DatasetKey{Namespace: "pay", Name: name}, State: state}
}

// carried is what the other end reads.
func carried(t *testing.T, m *agentv1.Heartbeat) *agentv1.Heartbeat {
	t.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	out := &agentv1.Heartbeat{}
	if err := proto.Unmarshal(data, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestAStreamCarriesWholeHeartbeats: what is said in differences is heard whole,
// whatever comes, goes, changes and moves.
func TestAStreamCarriesWholeHeartbeats(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 1))
		var speaker Speaker
		var listener Listener
		var all []*agentv1.DatasetObservation
		for seq := uint64(1); seq <= 100; seq++ {
			switch n := r.IntN(10); {
			case n < 3:
				all = append(all[:len(all):len(all)], observation(fmt.Sprint("set-", seq), "Running"))
			case n == 3 && len(all) > 0:
				i := r.IntN(len(all))
				all = append(all[:i:i], all[i+1:]...)
			case n < 7 && len(all) > 0:
				i := r.IntN(len(all))
				all = append(all[:i:i], append([]*agentv1.DatasetObservation{observation(all[i].GetDataset().GetName(), fmt.Sprint("state ", seq))}, all[i+1:]...)...)
			case n == 7:
				all = append([]*agentv1.DatasetObservation{}, all...)
				r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			case n == 8 && r.IntN(5) == 0:
				all = nil
			}
			whole := &agentv1.Heartbeat{Seq: seq, Replica: "a", Active: true, Observable: true, Pledges: true, Datasets: all,
				Authorities: &agentv1.AuthorityProgress{Generation: seq}, Roles: &agentv1.RolesHeld{Version: seq}}
			for range all {
				whole.AgesMillis = append(whole.AgesMillis, r.Int64N(1000))
			}
			want := proto.CloneOf(whole)
			got, err := listener.Whole(carried(t, speaker.Next(whole)))
			if err != nil {
				t.Fatalf("seed %d seq %d: %v", seed, seq, err)
			}
			if !proto.Equal(got, want) || !proto.Equal(whole, want) {
				t.Fatalf("seed %d seq %d: heard %v of %v, want %v", seed, seq, got, whole, want)
			}
		}
	}
}

// TestWhatHasNotChangedIsNotSaidAgain: a heartbeat of a thousand observations at rest
// is small.
func TestWhatHasNotChangedIsNotSaidAgain(t *testing.T) {
	var speaker Speaker
	whole := &agentv1.Heartbeat{Seq: 1, Active: true}
	for i := range 1000 {
		whole.Datasets, whole.AgesMillis = append(whole.Datasets, observation(fmt.Sprint("set-", i), "Running")), append(whole.AgesMillis, 500)
	}
	first := proto.Size(speaker.Next(whole))
	if again := proto.Size(speaker.Next(whole)); 5*again > first {
		t.Errorf("it takes %d bytes, and %d the first time", again, first)
	}
}

func TestAListenerRefusesWhatItCannotResolve(t *testing.T) {
	one := []*agentv1.DatasetObservation{observation("a", "Running")}
	for what, said := range map[string]*agentv1.Heartbeat{
		"one of before, where there was none": {Same: []uint32{1}, AgesMillis: []int64{1}},
		"a new one that is missing":           {Same: []uint32{0, 0}, Datasets: one, AgesMillis: []int64{1, 1}},
		"a new one that is not named":         {Same: []uint32{0}, Datasets: append(one, one...), AgesMillis: []int64{1}},
		"too few ages":                        {Same: []uint32{0}, Datasets: one, AgesMillis: []int64{1, 1}},
		"no ages":                             {Same: []uint32{0}, Datasets: one},
		"more than there may be":              {Same: make([]uint32, mostObservations+1)},
	} {
		var l Listener
		if whole, err := l.Whole(said); err == nil {
			t.Errorf("%s: heard as %v", what, whole)
		}
	}
}

// TestPlainIsWhatOlderProgramsKnow: ages are inside, and what was kept stays as it is.
func TestPlainIsWhatOlderProgramsKnow(t *testing.T) {
	whole := &agentv1.Heartbeat{Seq: 3, Datasets: []*agentv1.DatasetObservation{observation("a", "Running")}, AgesMillis: []int64{40}}
	plain := Plain(whole, 2*time.Millisecond)
	if plain.GetDatasets()[0].GetAgeMillis() != 42 || plain.AgesMillis != nil || plain.GetSeq() != 3 {
		t.Errorf("got %v", plain)
	}
	if whole.GetDatasets()[0].GetAgeMillis() != 0 || Age(whole, 0) != 40*time.Millisecond || Age(plain, 0) != 42*time.Millisecond {
		t.Errorf("%v has changed", whole)
	}
	if bare := Unobserved(whole); len(bare.GetDatasets())+len(bare.GetAgesMillis()) != 0 || bare.GetSeq() != 3 || len(whole.GetDatasets()) != 1 {
		t.Errorf("got %v of %v", bare, whole)
	}
}

func TestRolesRefuseADifferenceToWhatIsNotHeld(t *testing.T) {
	role := func(name string, epoch int64) *agentv1.RoleGrant {
		return &agentv1.RoleGrant{Dataset: &agentv1.DatasetKey{Namespace: "pay", Name: name}, Epoch: epoch}
	}
	held := func() *Roles {
		r := &Roles{}
		if _, err := r.Take(&agentv1.Grant{Term: 7, Version: 5, Roles: []*agentv1.RoleGrant{role("a", 1), role("b", 1)}}); err != nil {
			t.Fatal(err)
		}
		return r
	}
	for what, g := range map[string]*agentv1.Grant{
		"another term":       {Term: 8, Version: 6, Since: 5, Total: 2},
		"another hub":        {Incarnation: 2, Term: 7, Version: 6, Since: 5, Total: 2},
		"a later version":    {Term: 7, Version: 7, Since: 6, Total: 2},
		"one that is missed": {Term: 7, Version: 6, Since: 5, Total: 3},
	} {
		r := held()
		if whole, err := r.Take(g); err == nil {
			t.Errorf("a difference to %s gives %v", what, whole)
		}
		if r.Forget(); r.Held() != nil {
			t.Errorf("held is %v", r.Held())
		}
	}
	r := held()
	whole, err := r.Take(&agentv1.Grant{Term: 7, Version: 6, Since: 5, Total: 2, Roles: []*agentv1.RoleGrant{role("c", 2)}, Gone: []*agentv1.DatasetKey{role("a", 0).GetDataset()}})
	if err != nil || len(whole.GetRoles()) != 2 || whole.GetRoles()[0].GetDataset().GetName() != "b" || whole.GetRoles()[1].GetEpoch() != 2 {
		t.Errorf("got %v, %v", whole, err)
	}
	if r.Held().GetVersion() != 6 || r.Held().GetTerm() != 7 {
		t.Errorf("held is %v", r.Held())
	}
}
