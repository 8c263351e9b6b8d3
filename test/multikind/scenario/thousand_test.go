package scenario

import (
	"context"
	"fmt"
	"testing"
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/test/multikind/traffic"
)

// slowestDrivers is how long the drivers alone take for the longest way through the
// dependencies: each book is fenced, promoted and proven.
const slowestDrivers = bookShelves * 3 * bookTakes

// S22: a thousand applications leave a center in the order in which they depend on each
// other, and one of them cannot be promoted: it holds what depends on it, and nothing
// else. When it is mended the rest follows. No line that a client was told is durable is
// lost, and no two copies accept.
func TestS22AThousandApplicationsInOrder(t *testing.T) {
	f := fleet(t)
	source, target := shelfCenters[0], shelfCenters[1]
	another := f.people(t, "ann")[0]
	deployLibrary(t, f)
	r := f.startReaders(t)
	f.booksWritten(t, r, source)

	ordered := traffic.Monotonic()
	run := f.order(t, "failover", "--from-center", source, "--to", target, "--plan", library)
	held := booksHeldBy(brokenBook)
	f.booksMoved(t, run, books-1-len(held))
	took := f.lastProven(t, target) - time.Duration(ordered)
	broken := f.judgeStates(t, run, held)
	f.tell(fmt.Sprintf("%d applications have moved in %.1f s, %.1f s beyond the slowest drivers", books-1-len(held), seconds(took), seconds(took-slowestDrivers)))
	shared.played.BeyondDrivers = new(seconds(took - slowestDrivers))

	must(t)(f.Kubectl(t.Context(), nil, "--context", "hub", "-n", library, "patch", "dataset", bookName(brokenBook), "--type=json",
		"--patch", `[{"op": "remove", "path": "/spec/members/1/parameters/refuses"}]`))
	must(t)(f.Tripodctl(t.Context(), "run", "resume", broken, "--kubeconfig", another))
	f.booksMoved(t, run, books)
	f.booksWritten(t, r, target)
	deeds, err := f.deeds(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range outOfOrder(deeds) {
		t.Error(wrong)
	}
	if verified, err := f.verifyEvidence(t.Context(), run); err != nil || !verified {
		t.Errorf("the evidence of %s: verified %t, %v", run, verified, err)
	}
	r.audit(t, source, target)
}

// booksWritten waits until every book has acknowledged a line in a center.
func (f *Fleet) booksWritten(t *testing.T, r *readers, center string) {
	t.Helper()
	err := f.await(t.Context(), 5*time.Minute, "every book is written in "+center, func(context.Context) (string, error) {
		if n := r.written(center); n < books {
			return fmt.Sprintf("%d of %d", n, books), nil
		}
		return "", nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// booksMoved waits until the run has moved n books.
func (f *Fleet) booksMoved(t *testing.T, run string, n int) {
	t.Helper()
	said := ""
	err := f.awaitEvery(t.Context(), booksEvery, booksWithin, fmt.Sprintf("%s has moved %d books", run, n), func(ctx context.Context) (string, error) {
		r, err := f.recoveryRun(ctx, run)
		if err != nil {
			return "", err
		}
		p := r.Status.Progress
		if p == nil {
			return fmt.Sprintf("it is %s: %s", r.Status.Phase, r.Status.Message), nil
		}
		now := fmt.Sprintf("%s is %s: %d moved, %d running, %d waiting, %d stuck, %d held, %d failed", run, r.Status.Phase, p.Completed, p.Running, p.Waiting, p.Stuck, p.Held, p.Failed)
		if now != said {
			f.tell(now)
			said = now
		}
		if int(p.Completed) < n {
			return now + ": " + r.Status.Message, nil
		}
		return "", nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// lastProven is when the last of the books was proven by a write in a center.
func (f *Fleet) lastProven(t *testing.T, center string) time.Duration {
	t.Helper()
	deeds, err := f.deeds(t.Context(), center)
	if err != nil {
		t.Fatal(err)
	}
	last := int64(0)
	for _, d := range deeds {
		if d.Epoch >= 2 && d.Verb == "probe" && d.Error == "" {
			last = max(last, d.Ended)
		}
	}
	return time.Duration(last)
}

// judgeStates fails the test unless the broken book is stuck, those that depend on it are
// held, and all others have moved. It returns the broken book's own run.
func (f *Fleet) judgeStates(t *testing.T, run string, held map[int]bool) string {
	t.Helper()
	r, err := f.recoveryRun(t.Context(), run)
	if err != nil {
		t.Fatal(err)
	}
	states := map[string]*v1alpha1.RunApplication{}
	for i := range r.Status.Applications {
		states[r.Status.Applications[i].Name] = &r.Status.Applications[i]
	}
	for i := range books {
		want := v1alpha1.ApplicationCompleted
		switch {
		case i == brokenBook:
			want = v1alpha1.ApplicationStuck
		case held[i]:
			want = v1alpha1.ApplicationHeld
		}
		if a := states[bookName(i)]; a == nil || a.State != want {
			t.Errorf("%s is %+v, want %s", bookName(i), a, want)
		}
	}
	broken := states[bookName(brokenBook)]
	if broken == nil {
		t.Fatalf("%s has no book %s", run, bookName(brokenBook))
	}
	says(t, broken.Message, "refuses to promote")
	return broken.Run
}

// outOfOrder says which books were promoted before one that they depend on was proven by
// a write. It is pure.
func outOfOrder(deeds []deed) []string {
	promoted, proven := map[string]int64{}, map[string]int64{}
	for _, d := range deeds {
		switch {
		case d.Epoch < 2 || d.Error != "":
		case d.Verb == "promote" && promoted[d.Dataset] == 0:
			promoted[d.Dataset] = d.Began
		case d.Verb == "probe" && proven[d.Dataset] == 0:
			proven[d.Dataset] = d.Ended
		}
	}
	var wrong []string
	for i := range books {
		book := library + "/" + bookName(i)
		if promoted[book] == 0 || proven[book] == 0 {
			wrong = append(wrong, book+" was not promoted and proven")
		}
		for _, n := range bookNeeds(i) {
			if need := library + "/" + bookName(n); promoted[book] < proven[need] {
				wrong = append(wrong, fmt.Sprintf("%s was promoted before %s, which it depends on, was proven", book, need))
			}
		}
	}
	return wrong
}
