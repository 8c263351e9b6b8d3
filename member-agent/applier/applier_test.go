package applier

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"tripod.dev/tripod/hub/api/v1alpha1"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func manifest(name string, incarnation uint64, revision int64) []byte {
	raw, _ := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{
			"namespace": "pay", "name": name,
			"labels": map[string]any{v1alpha1.LabelManagedBy: managedBy},
			"annotations": map[string]any{
				v1alpha1.AnnotationRevision:    strconv.FormatInt(revision, 10),
				v1alpha1.AnnotationIncarnation: strconv.FormatUint(incarnation, 10),
			},
		},
		"data": map[string]any{"k": fmt.Sprint(revision)},
	})
	return raw
}

// memory is a cluster in memory that notes every write.
type memory struct {
	mu      sync.Mutex
	objects map[identity]*unstructured.Unstructured
	applied int
	removed []string
	refuse  map[string]error
	changed func(identity)
}

func newMemory() *memory {
	return &memory{objects: map[identity]*unstructured.Unstructured{}, refuse: map[string]error{}}
}

func (m *memory) get(_ context.Context, key *agentv1.ObjectKey) (*unstructured.Unstructured, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.refuse[key.Name]; err != nil {
		return nil, err
	}
	if o, ok := m.objects[identityOf(key)]; ok {
		return o.DeepCopy(), nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: key.Kind}, key.Name)
}

func (m *memory) apply(_ context.Context, obj *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.applied++
	m.objects[idOf(obj)] = obj.DeepCopy()
	return obj, nil
}

func (m *memory) remove(_ context.Context, obj *unstructured.Unstructured) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, idOf(obj))
	m.removed = append(m.removed, obj.GetName())
	return nil
}

func (m *memory) watch(_ *agentv1.ObjectKey, changed func(identity)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changed = changed
}

func (m *memory) run(ctx context.Context) { <-ctx.Done() }

// disturb changes the cluster behind the applier's back, as a person would.
func (m *memory) disturb(name string, obj *unstructured.Unstructured) {
	m.mu.Lock()
	id := identityOf(key(name))
	if obj == nil {
		delete(m.objects, id)
	} else {
		m.objects[id] = obj
	}
	changed := m.changed
	m.mu.Unlock()
	if changed != nil {
		changed(id)
	}
}

func (m *memory) names() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for id := range m.objects {
		out = append(out, id.name)
	}
	slices.Sort(out)
	return out
}

func (m *memory) revision(name string) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return stampOf(m.objects[identityOf(key(name))]).Revision
}

func idOf(obj *unstructured.Unstructured) identity {
	return identityOf(&agentv1.ObjectKey{ApiVersion: obj.GetAPIVersion(), Kind: obj.GetKind(), Namespace: obj.GetNamespace(), Name: obj.GetName()})
}

// drive runs an active applier over m in a bubble of time; settle lets all that
// follows from the last call happen.
func drive(t *testing.T, m *memory, seen Seen, story func(a *Applier, settle func())) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		a, err := New(Config{cluster: m, Seen: seen})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- a.Run(ctx) }()
		a.SetActive(true)
		story(a, func() {
			<-time.After(2 * time.Minute) // of the bubble's clock: resyncs and retries included
			synctest.Wait()
		})
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// I3: nothing is deleted because of a disconnect, an empty, partial or older
// answer, or a restart.
func TestAbsenceDeletesNothing(t *testing.T) {
	full := func() *agentv1.DesiredState { return state(1, 10, wish("a", 8), wish("b", 9)) }
	tests := map[string]func(a *Applier){
		"an empty answer":                          func(a *Applier) { a.Desired(state(1, 11)) },
		"an empty answer of a newer hub":           func(a *Applier) { a.Desired(state(2, 1)) },
		"an incomplete answer":                     func(a *Applier) { a.Desired(partial(state(1, 12, wish("a", 8)))) },
		"an older answer without one object":       func(a *Applier) { a.Desired(state(1, 3, wish("a", 2))) },
		"an older tombstone":                       func(a *Applier) { a.Desired(state(1, 10, wish("b", 9), grave("a", 7))) },
		"a tombstone of an older incarnation":      func(a *Applier) { a.Desired(state(0, 99, grave("a", 98), grave("b", 98))) },
		"the replica stops being active and comes": func(a *Applier) { a.SetActive(false); a.SetActive(true) },
	}
	for name, happens := range tests {
		t.Run(name, func(t *testing.T) {
			m := newMemory()
			drive(t, m, Seen{}, func(a *Applier, settle func()) {
				a.Desired(full())
				settle()
				happens(a)
				settle()
			})
			if got := m.names(); !slices.Equal(got, []string{"a", "b"}) || len(m.removed) > 0 {
				t.Errorf("left %v, removed %v", got, m.removed)
			}
			// A new process that heard nothing, or only the same thing again.
			drive(t, m, Seen{Incarnation: 1, Revision: 10}, func(a *Applier, settle func()) {
				settle()
				happens(a)
				settle()
			})
			if got := m.names(); !slices.Equal(got, []string{"a", "b"}) || len(m.removed) > 0 {
				t.Errorf("after a restart: left %v, removed %v", got, m.removed)
			}
		})
	}
}

// The check above can fail: an applier that takes absence for an order, as a
// controller that prunes would, breaks it.
func TestTheCheckOfAbsenceFindsAPruner(t *testing.T) {
	m := newMemory()
	drive(t, m, Seen{}, func(a *Applier, settle func()) {
		a.Desired(state(1, 10, wish("a", 8), wish("b", 9)))
		settle()
		// The planted bug: what a complete state leaves out is buried.
		pruned := state(1, 11, wish("a", 8))
		for id := range a.ledger.orders {
			if id.name != "a" {
				pruned.Burials = append(pruned.Burials, grave(id.name, 11))
			}
		}
		a.Desired(pruned)
		settle()
	})
	if got := m.names(); slices.Equal(got, []string{"a", "b"}) {
		t.Error("a pruner deletes nothing: the check cannot fail")
	}
}

func TestATombstoneIsCarriedOutAndAcknowledged(t *testing.T) {
	m := newMemory()
	drive(t, m, Seen{}, func(a *Applier, settle func()) {
		a.Desired(state(1, 10, wish("a", 8), wish("b", 9)))
		settle()
		a.Desired(state(1, 12, wish("b", 9), grave("a", 12), grave("never-there", 12)))
		settle()
		if got := a.Status().GetBuried(); !slices.Equal(got, []string{"pay/a", "pay/never-there"}) {
			t.Errorf("acknowledged %v", got)
		}
		// The hub forgets the tombstone; so does the agent.
		a.Desired(state(1, 13, wish("b", 9)))
		settle()
		if got := a.Status().GetBuried(); len(got) > 0 {
			t.Errorf("still acknowledges %v", got)
		}
	})
	if got := m.names(); !slices.Equal(got, []string{"b"}) {
		t.Errorf("left %v", got)
	}
}

func TestATombstoneSparesWhatIsNotOurs(t *testing.T) {
	m := newMemory()
	foreign := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap"}}
	foreign.SetNamespace("pay")
	foreign.SetName("a")
	m.disturb("a", foreign)
	drive(t, m, Seen{}, func(a *Applier, settle func()) {
		a.Desired(state(1, 12, grave("a", 12)))
		settle()
		if got := a.Status().GetBuried(); !slices.Equal(got, []string{"pay/a"}) {
			t.Errorf("acknowledged %v", got)
		}
	})
	if got := m.names(); !slices.Equal(got, []string{"a"}) {
		t.Errorf("left %v", got)
	}
}

func TestATombstoneIsNotAcknowledgedWhileTheObjectCannotBeRead(t *testing.T) {
	m := newMemory()
	m.refuse["a"] = apierrors.NewServiceUnavailable("the API server is away")
	drive(t, m, Seen{}, func(a *Applier, settle func()) {
		a.Desired(state(1, 12, grave("a", 12)))
		settle()
		if got := a.Status().GetBuried(); len(got) > 0 {
			t.Errorf("acknowledged %v", got)
		}
	})
}

func TestDriftIsRepaired(t *testing.T) {
	m := newMemory()
	drive(t, m, Seen{}, func(a *Applier, settle func()) {
		a.Desired(state(1, 10, wish("a", 8)))
		settle()
		m.disturb("a", nil)
		synctest.Wait()
		if got := m.names(); !slices.Equal(got, []string{"a"}) {
			t.Errorf("deleted by hand and not made again at once: %v", got)
		}
		applied := m.applied
		settle()
		if m.applied != applied {
			t.Errorf("%d applies although nothing drifted", m.applied-applied)
		}
	})
}

func TestOnlyTheActiveReplicaActs(t *testing.T) {
	m := newMemory()
	drive(t, m, Seen{}, func(a *Applier, settle func()) {
		a.SetActive(false)
		a.Desired(state(1, 10, wish("a", 8)))
		settle()
		if m.applied > 0 || a.Status() != nil {
			t.Errorf("%d applies, status %v while not active", m.applied, a.Status())
		}
		a.SetActive(true)
		synctest.Wait()
		if m.applied != 1 {
			t.Errorf("%d applies once active, want 1 at once", m.applied)
		}
	})
}

// A replica that has just become active knows little; a status of that little
// would look as if the rest were gone.
func TestNoStatusIsSentBeforeEverythingWasLookedAt(t *testing.T) {
	m := newMemory()
	var sent []int
	synctest.Test(t, func(t *testing.T) {
		a, err := New(Config{cluster: m, Send: func(s *agentv1.AppliedStatus) { sent = append(sent, len(s.Objects)) }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- a.Run(ctx) }()
		a.SetActive(true)
		a.Desired(partial(state(1, 9, wish("a", 8))))
		<-time.After(time.Second)
		if len(sent) > 0 {
			t.Errorf("sent %v on an incomplete state", sent)
		}
		a.Desired(state(1, 10, wish("a", 8), wish("b", 9), wish("c", 9)))
		<-time.After(time.Second)
		a.SetActive(false)
		m.mu.Lock()
		m.refuse["b"] = apierrors.NewServiceUnavailable("away")
		m.mu.Unlock()
		a.SetActive(true)
		<-time.After(time.Second)
		cancel()
		<-done
	})
	if len(sent) == 0 || slices.Min(sent) < 3 {
		t.Errorf("sizes of the statuses sent: %v, want 3 each", sent)
	}
}

func TestAnIncompleteStateIsReportedInTheEnd(t *testing.T) {
	m := newMemory()
	drive(t, m, Seen{}, func(a *Applier, settle func()) {
		a.Desired(partial(state(1, 9, wish("a", 8))))
		settle()
		if n := len(a.Status().GetObjects()); n != 1 {
			t.Errorf("%d objects are reported after a long incomplete state", n)
		}
	})
}

func TestAnOlderRenderingDoesNotReplaceANewerOne(t *testing.T) {
	m := newMemory()
	drive(t, m, Seen{}, func(a *Applier, settle func()) {
		a.Desired(state(1, 10, wish("a", 8)))
		settle()
	})
	// A new process that remembers nothing hears a member that lags.
	drive(t, m, Seen{}, func(a *Applier, settle func()) {
		a.Desired(state(1, 6, wish("a", 5)))
		settle()
		if got := m.revision("a"); got != 8 {
			t.Errorf("revision %d is applied over 8", got)
		}
		if r := a.Status().GetObjects()[0]; r.GetApplied() {
			t.Errorf("reported as applied: %v", r)
		}
		a.Desired(state(1, 11, wish("a", 11)))
		settle()
		if got := m.revision("a"); got != 11 {
			t.Errorf("revision %d is applied, want 11", got)
		}
	})
}

func TestAFailureIsReportedAndRetried(t *testing.T) {
	m := newMemory()
	m.refuse["a"] = apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, "a", nil)
	drive(t, m, Seen{}, func(a *Applier, settle func()) {
		a.Desired(state(1, 10, wish("a", 8), wish("b", 8)))
		settle()
		objects := a.Status().GetObjects()
		if objects[0].GetApplied() || objects[0].GetMessage() == "" || !objects[1].GetApplied() {
			t.Errorf("status %v", objects)
		}
		m.mu.Lock()
		delete(m.refuse, "a")
		m.mu.Unlock()
		settle()
		if !a.Status().GetObjects()[0].GetApplied() {
			t.Errorf("not retried: %v", a.Status().GetObjects()[0])
		}
	})
}
