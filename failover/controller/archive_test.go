package controller

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/failover/evidence"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// anArchive is an archive with a clock that the test sets.
type anArchive struct {
	*archive
	client.Client
	t   *testing.T
	now time.Duration
}

func newAnArchive(t *testing.T) *anArchive {
	a := &anArchive{t: t, Client: fake.NewClientBuilder().WithScheme(Scheme()).WithStatusSubresource(&v1alpha1.RecoveryRun{}).Build()}
	a.archive = &archive{client: a.Client, statuses: throughClient{a.Client}, clock: func() time.Duration { return a.now }, log: slog.New(slog.NewTextHandler(t.Output(), nil)), wrote: func(*v1alpha1.RecoveryRun) {}, stuck: newMetrics().unarchived}
	a.reset()
	return a
}

// run is a run with as many records in its journal, in a phase.
func (a *anArchive) run(uid string, phase v1alpha1.RunPhase, records int) *v1alpha1.RecoveryRun {
	a.t.Helper()
	run := &v1alpha1.RecoveryRun{ObjectMeta: metav1.ObjectMeta{Name: "out", UID: types.UID(uid)}}
	if err := a.Create(a.t.Context(), run); err != nil {
		a.t.Fatal(err)
	}
	run.Status.Phase = phase
	a.grow(run, records)
	return run
}

func (a *anArchive) grow(run *v1alpha1.RecoveryRun, records int) {
	a.t.Helper()
	notes := make([]failover.Note, records)
	for i := range notes {
		notes[i] = failover.Note{Run: run.Name, Kind: failover.NoteDecision, Text: string(run.UID)}
	}
	r := recorder{member: "hub-a"}
	if err := r.seal(run, notes); err != nil {
		a.t.Fatal(err)
	}
	if err := a.Status().Update(a.t.Context(), run); err != nil {
		a.t.Fatal(err)
	}
}

// archived is what the ConfigMap of that name holds.
func (a *anArchive) archived(name string) []evidence.Record {
	a.t.Helper()
	var cm corev1.ConfigMap
	if err := a.Get(a.t.Context(), client.ObjectKey{Namespace: evidence.Namespace, Name: name}, &cm); client.IgnoreNotFound(err) != nil {
		a.t.Fatal(err)
	}
	chain, err := evidence.Decode([]byte(cm.Data[evidence.ConfigMapKey]))
	if err != nil {
		a.t.Fatal(err)
	}
	return chain
}

func (a *anArchive) journal() string {
	a.t.Helper()
	var run v1alpha1.RecoveryRun
	if err := a.Get(a.t.Context(), client.ObjectKey{Name: "out"}, &run); err != nil {
		a.t.Fatal(err)
	}
	return run.Status.Evidence.Recent
}

// play takes and plays the rounds that are due for a run as it is stored.
func (a *anArchive) play() (rounds int) {
	a.t.Helper()
	for {
		var runs v1alpha1.RecoveryRunList
		if err := a.List(a.t.Context(), &runs); err != nil {
			a.t.Fatal(err)
		}
		round := a.due(pointers(&runs.Items)())
		if len(round) == 0 {
			return rounds
		}
		rounds++
		a.round(a.t.Context(), round)
	}
}

func TestEvidenceOfAnEndedRunIsMovedToItsArchive(t *testing.T) {
	a := newAnArchive(t)
	run := a.run("first", v1alpha1.RunPromoting, 3)
	if a.play() != 0 || a.journal() == "" {
		t.Error("a short run was archived while it was under way")
	}
	run.Status.Phase = v1alpha1.RunCompleted
	a.grow(run, 2)
	if a.play() != 1 {
		t.Fatal("nothing was archived")
	}
	if err := evidence.Verify(a.archived("evidence-out"), "out", run.Status.Evidence.Head); err != nil || a.journal() != "" {
		t.Errorf("archived: %v; the journal still holds %q", err, a.journal())
	}
}

func TestALongRunIsArchivedUnderWay(t *testing.T) {
	a := newAnArchive(t)
	run := a.run("first", v1alpha1.RunPaused, 300)
	if a.play() != 1 || a.journal() != "" {
		t.Fatal("it was not archived")
	}
	if err := a.Get(t.Context(), client.ObjectKeyFromObject(run), run); err != nil {
		t.Fatal(err)
	}
	run.Status.Phase = v1alpha1.RunCompleted
	a.grow(run, 1)
	a.play()
	if chain := a.archived("evidence-out"); len(chain) != 301 || evidence.Verify(chain, "out", run.Status.Evidence.Head) != nil {
		t.Errorf("the archive holds %d records", len(chain))
	}
}

// The leader may die between the archive and the cut.
func TestWhatIsArchivedAlreadyIsNotAddedAgain(t *testing.T) {
	a := newAnArchive(t)
	run := a.run("first", v1alpha1.RunCompleted, 3)
	a.play()
	recent, err := evidence.Encode(a.archived("evidence-out")[1:])
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Get(t.Context(), client.ObjectKeyFromObject(run), run); err != nil {
		t.Fatal(err)
	}
	run.Status.Evidence.Recent = string(recent)
	if err := a.Status().Update(t.Context(), run); err != nil {
		t.Fatal(err)
	}
	if a.play() != 1 || len(a.archived("evidence-out")) != 3 || a.journal() != "" {
		t.Errorf("%d records are archived, the journal holds %q", len(a.archived("evidence-out")), a.journal())
	}
}

func TestAnEditedArchiveIsLeftAsItIs(t *testing.T) {
	a := newAnArchive(t)
	run := a.run("first", v1alpha1.RunCompleted, 3)
	edited := evidence.Append(nil, "out", evidence.Record{Text: "all is well"})
	body, err := evidence.Encode(edited)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: evidence.Namespace, Name: "evidence-out",
		Annotations: map[string]string{evidence.RunUID: string(run.UID)}}, Data: map[string]string{evidence.ConfigMapKey: string(body)}}); err != nil {
		t.Fatal(err)
	}
	if a.play() != 1 {
		t.Error("it is tried again without a pause")
	}
	if got := a.archived("evidence-out"); len(got) != 1 || strings.Count(a.journal(), "\n") != 3 {
		t.Errorf("the archive holds %d records, the journal %q", len(got), a.journal())
	}
	if a.now += archiveRetry; a.play() != 1 {
		t.Error("it is not tried again")
	}
}

func TestAnOlderRunOfTheNameKeepsItsArchive(t *testing.T) {
	a := newAnArchive(t)
	older := a.run("first", v1alpha1.RunCompleted, 3)
	a.play()
	if err := a.Delete(t.Context(), older); err != nil {
		t.Fatal(err)
	}
	run := a.run("second", v1alpha1.RunCompleted, 2)
	a.play()
	if err := evidence.Verify(a.archived("evidence-out"), "out", run.Status.Evidence.Head); err != nil {
		t.Error(err)
	}
	if err := evidence.Verify(a.archived("evidence-out.first"), "out", older.Status.Evidence.Head); err != nil {
		t.Error(err)
	}
}

// A fence that fails for hours is asked again and again, and each attempt is evidence.
func TestAnArchiveHasMoreThanOneObject(t *testing.T) {
	a := newAnArchive(t)
	run := a.run("first", v1alpha1.RunPaused, 1)
	for range 12 {
		a.grow(run, 300)
		a.play()
		if err := a.Get(t.Context(), client.ObjectKeyFromObject(run), run); err != nil {
			t.Fatal(err)
		}
	}
	run.Status.Phase = v1alpha1.RunCompleted
	a.grow(run, 1)
	a.play()
	var chain []evidence.Record
	for number := range 4 {
		part := a.archived(evidence.ConfigMap("out", number+1))
		if body, err := evidence.Encode(part); err != nil || len(body) > 2*evidence.PartBytes-1 {
			t.Errorf("part %d has %d bytes: %v", number+1, len(body), err)
		}
		chain = append(chain, part...)
	}
	if err := evidence.Verify(chain, "out", run.Status.Evidence.Head); err != nil || len(chain) != 3602 || a.journal() != "" {
		t.Errorf("%d records are archived, %d bytes are in the journal: %v", len(chain), len(a.journal()), err)
	}
	if len(a.archived(evidence.ConfigMap("out", 2))) == 0 {
		t.Error("all of it is in one object: the test tests nothing")
	}
}

// A run must go on, whatever becomes of its evidence.
func TestAJournalDoesNotGrowForEver(t *testing.T) {
	a := newAnArchive(t)
	run := a.run("first", v1alpha1.RunPaused, 2000)
	r := recorder{member: "hub-a"}
	before := run.Status.Evidence
	if err := r.seal(run, []failover.Note{{Run: run.Name, Kind: failover.NoteDecision}}); err == nil || run.Status.Evidence != before {
		t.Errorf("%d bytes, %v", len(run.Status.Evidence.Recent), err)
	}
}

func TestTheArchiveRestsAfterARound(t *testing.T) {
	a := newAnArchive(t)
	run := a.run("first", v1alpha1.RunCompleted, 1)
	round := a.due([]*v1alpha1.RecoveryRun{run})
	if again := a.due([]*v1alpha1.RecoveryRun{run}); len(round) != 1 || len(again) != 0 {
		t.Errorf("rounds of %d and %d", len(round), len(again))
	}
	a.wrote = func(*v1alpha1.RecoveryRun) { a.now += time.Second }
	a.round(t.Context(), round)
	if rest := a.rest - a.now; rest != archiveRests*time.Second {
		t.Errorf("it rests for %v", rest)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if a.round(ended, round); a.busy {
		t.Error("a round of a term that is over changed the next one's")
	}
}

// What the archive writes is in the way of what it is about, so it waits for that, unless a
// journal becomes too large; and it does not wait for runs that wait for people.
func TestTheArchiveWaitsForRunsThatAreUnderWay(t *testing.T) {
	a := newAnArchive(t)
	run := func(phase v1alpha1.RunPhase, evidence int) *v1alpha1.RecoveryRun {
		return &v1alpha1.RecoveryRun{Status: v1alpha1.RecoveryRunStatus{Phase: phase, Evidence: v1alpha1.EvidenceHead{Recent: strings.Repeat("e", evidence)}}}
	}
	runs := []*v1alpha1.RecoveryRun{run(v1alpha1.RunCompleted, 1), run(v1alpha1.RunCompleted, 1), run(v1alpha1.RunWaves, archiveBeyond+1)}
	for range 2 * fewAccounts {
		runs = append(runs, run(v1alpha1.RunPaused, 1))
	}
	if n := len(a.due(runs)); n != 3 {
		t.Errorf("%d runs are archived beside a few under way, want 3", n)
	}
	a.reset()
	for range fewAccounts {
		runs = append(runs, run(v1alpha1.RunPromoting, 1))
	}
	if n := len(a.due(runs)); n != 1 {
		t.Errorf("%d runs are archived beside many under way, want the one that has grown", n)
	}
}

// Evidence that cannot be moved is safe where it is, until that is full: somebody must know.
func TestEvidenceThatCannotBeArchivedIsCounted(t *testing.T) {
	a := newAnArchive(t)
	a.run("first", v1alpha1.RunCompleted, 1)
	works := a.client
	a.client = interceptor.NewClient(a.Client.(client.WithWatch), interceptor.Funcs{Create: func(context.Context, client.WithWatch, client.Object, ...client.CreateOption) error {
		return errors.New("no")
	}})
	if a.play(); testutil.ToFloat64(a.stuck) != 1 {
		t.Errorf("%v runs are stuck, want 1", testutil.ToFloat64(a.stuck))
	}
	a.client, a.now = works, a.now+archiveRetry
	if a.play(); testutil.ToFloat64(a.stuck) != 0 || a.journal() != "" {
		t.Errorf("%v runs are stuck, want none: it was archived", testutil.ToFloat64(a.stuck))
	}
}
