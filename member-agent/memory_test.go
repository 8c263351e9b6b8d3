package memberagent

import (
	"context"
	"log/slog"
	"testing"

	"k8s.io/client-go/kubernetes/fake"
)

// A hub that was restored from a backup goes on in a new incarnation at a lower
// revision. What the agent remembers of the one before must not make it take the
// new one's state for an old one after a restart: it would apply nothing of it.
func TestMemoryOfANewIncarnationBeginsAnew(t *testing.T) {
	local := fake.NewClientset()
	life := func(incarnation uint64, revision int64, heard ...uint64) *memory {
		m := newMemory(local, "tripod-system", slog.New(slog.DiscardHandler))
		if _, _, err := m.load(context.Background()); err != nil {
			t.Fatal(err)
		}
		m.seen = func() (uint64, int64) { return incarnation, revision }
		for _, i := range heard {
			m.remember(i)
		}
		if err := m.write(context.Background()); err != nil {
			t.Fatal(err)
		}
		return m
	}
	remembers := func(when string, incarnation uint64, revision int64) {
		t.Helper()
		gotIncarnation, gotRevision, err := newMemory(local, "tripod-system", slog.New(slog.DiscardHandler)).load(context.Background())
		if err != nil || gotIncarnation != incarnation || gotRevision != revision {
			t.Errorf("%s it remembers incarnation %d revision %d (%v), want %d %d", when, gotIncarnation, gotRevision, err, incarnation, revision)
		}
	}
	life(2, 1043)
	remembers("at first", 2, 1043)
	life(2, 1000)
	remembers("after it saw less", 2, 1043)
	m := life(2, 1050, 3)
	remembers("when only a heartbeat told of the new incarnation", 3, 0)
	m.seen = func() (uint64, int64) { return 3, 538 }
	if err := m.write(context.Background()); err != nil {
		t.Fatal(err)
	}
	remembers("when the new incarnation's state has come", 3, 538)
	life(2, 2000)
	remembers("after a replica that has not heard of it wrote", 3, 538)
}
