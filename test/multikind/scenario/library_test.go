package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// The library is many applications, the books, each with a dataset of its own: registers
// that a rack (test/register) in each of two centers of a city holds and drives. Each
// book depends on two of the shelf below it.
const (
	library       = "library"
	books         = 1000
	bookShelves   = 5
	onShelf       = books / bookShelves
	firstBookPort = 20000
	// brokenBook is one that cannot be promoted where it should go.
	brokenBook = onShelf / 2
	// bookTakes is how long each step of a book's driver takes.
	bookTakes = time.Second
	// booksWithin is how long anything with all of them may take where three centers share
	// two cores; how long it takes is measured.
	booksWithin = 15 * time.Minute
	// booksEvery is how often all of them are looked at.
	booksEvery  = 3 * time.Second
	rackControl = "7801"
	rackJournal = "7802"
)

func bookName(i int) string { return fmt.Sprintf("book%04d", i) }

// bookNeeds are the books that a book depends on.
func bookNeeds(i int) []int {
	if i < onShelf {
		return nil
	}
	below := i - onShelf
	return []int{below, below - i%onShelf + (i+1)%onShelf}
}

// booksHeldBy are the books that depend on one, directly or not. It is pure.
func booksHeldBy(broken int) map[int]bool {
	held := map[int]bool{}
	for i := range books {
		for _, need := range bookNeeds(i) {
			if need == broken || held[need] {
				held[i] = true
			}
		}
	}
	return held
}

func (f *Fleet) bookAddress(center string, i int) string {
	return net.JoinHostPort(f.address(center), strconv.Itoa(firstBookPort+i))
}

func (f *Fleet) bookObjects(i int) []client.Object {
	meta := metav1.ObjectMeta{Namespace: library, Name: bookName(i), Labels: map[string]string{"part-of": library}}
	set := &v1alpha1.Dataset{ObjectMeta: *meta.DeepCopy(), Spec: v1alpha1.DatasetSpec{Driver: "register", Protection: v1alpha1.MaxAvailability}}
	for _, c := range shelfCenters {
		set.Spec.Members = append(set.Spec.Members, v1alpha1.DatasetMember{Cluster: c, Address: f.bookAddress(c, i),
			Parameters: map[string]string{"port": strconv.Itoa(firstBookPort + i)}})
	}
	if i == brokenBook {
		set.Spec.Members[1].Parameters["refuses"] = "promote"
	}
	app := &v1alpha1.Application{ObjectMeta: meta, Spec: v1alpha1.ApplicationSpec{Datasets: []string{bookName(i)},
		Failover: v1alpha1.FailoverPolicy{WithinRegion: v1alpha1.FailoverAutomatic, AcrossRegions: v1alpha1.FailoverApproval, HoldSeconds: 1}}}
	for _, need := range bookNeeds(i) {
		app.Spec.DependsOn = append(app.Spec.DependsOn, v1alpha1.ApplicationReference{Namespace: library, Name: bookName(need)})
	}
	return []client.Object{set, app}
}

// deployLibrary forms all books, with their primaries in the first of the centers. They
// are taken away with the test.
func deployLibrary(t *testing.T, f *Fleet) {
	t.Helper()
	// The books are in memory: nothing loses its power here, and all centers share one
	// disk, which a thousand copies that sync would keep from the hub's log.
	f.driveRegisters(t, registers{namespace: library, serve: "rack, --control=:7801, --journal=:7802, --takes=1s", volume: "medium: Memory",
		drive: func(center string) []string {
			return []string{"--rack=" + net.JoinHostPort(f.address(center), rackControl)}
		}}, func() { dropLibrary(t, f) })
	api, err := f.API()
	if err != nil {
		t.Fatal(err)
	}
	plan := &v1alpha1.RecoveryPlan{ObjectMeta: metav1.ObjectMeta{Name: library}, Spec: v1alpha1.RecoveryPlanSpec{
		Applications: v1alpha1.ApplicationSelector{LabelSelector: metav1.SetAsLabelSelector(map[string]string{"part-of": library})}}}
	for _, o := range []client.Object{&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: library}}, plan} {
		if err := api.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	create, ctx := errgroup.WithContext(t.Context())
	create.SetLimit(16)
	for i := range books {
		create.Go(func() error {
			for _, o := range f.bookObjects(i) {
				if err := createOnce(ctx, api, o); err != nil {
					return fmt.Errorf("create %T %s: %w", o, o.GetName(), err)
				}
			}
			return nil
		})
	}
	if err := create.Wait(); err != nil {
		t.Fatal(err)
	}
	f.tell(fmt.Sprintf("%d applications with a dataset each are created", books))
	f.booksProtected(t)
}

// createOnce creates an object also where the hub changes its leader in between: then
// nobody knows whether it was created.
func createOnce(ctx context.Context, api client.Client, o client.Object) error {
	unsure := func(err error) bool {
		return apierrors.IsTimeout(err) || apierrors.IsServerTimeout(err) || apierrors.IsInternalError(err) || apierrors.IsServiceUnavailable(err)
	}
	return retry.OnError(wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Steps: 6}, unsure, func() error {
		err := api.Create(ctx, o)
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
		return err
	})
}

// booksProtected waits until every book is Steady with both copies in its sync set.
func (f *Fleet) booksProtected(t *testing.T) {
	t.Helper()
	err := f.awaitEvery(t.Context(), booksEvery, booksWithin, "every book is Steady in "+shelfCenters[0]+", with both copies in its sync set", func(ctx context.Context) (string, error) {
		api, err := f.API()
		if err != nil {
			return "", err
		}
		var all v1alpha1.DatasetList
		if err := api.List(ctx, &all, client.InNamespace(library)); err != nil {
			return "", err
		}
		ready, last := 0, ""
		for i := range all.Items {
			d := &all.Items[i]
			if d.Status.Phase == v1alpha1.DatasetSteady && d.Status.Primary == shelfCenters[0] && len(d.Status.SyncSet) == len(shelfCenters) {
				ready++
				continue
			}
			last = fmt.Sprintf("%s is %s in %q at epoch %d, sync set %v: %s", d.Name, d.Status.Phase, d.Status.Primary, d.Status.Epoch, d.Status.SyncSet, states(d))
		}
		if ready < books {
			return fmt.Sprintf("%d of %d; %s", ready, books, last), nil
		}
		return "", nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// dropLibrary takes everything of it away, the accounts of its runs, too.
func dropLibrary(t *testing.T, f *Fleet) {
	dropRegisters(t, f, library)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*time.Minute)
	defer cancel()
	api, err := f.API()
	if err != nil {
		t.Error(err)
		return
	}
	if err := api.Delete(ctx, &v1alpha1.RecoveryPlan{ObjectMeta: metav1.ObjectMeta{Name: library}}); client.IgnoreNotFound(err) != nil {
		t.Error(err)
	}
	var runs v1alpha1.RecoveryRunList
	if err := api.List(ctx, &runs); err != nil {
		t.Error(err)
		return
	}
	drop, ctx := errgroup.WithContext(ctx)
	drop.SetLimit(16)
	for i := range runs.Items {
		if r := &runs.Items[i]; r.Spec.Plan == library || r.Spec.Application.Namespace == library {
			drop.Go(func() error { return client.IgnoreNotFound(api.Delete(ctx, r)) })
		}
	}
	if err := drop.Wait(); err != nil {
		t.Error(err)
	}
}

// deed is what a rack says that it has done; see test/register.
type deed struct {
	Dataset, Verb, Error string
	Epoch                int64
	Began, Ended         int64
}

// deeds is what the rack of a center has done.
func (f *Fleet) deeds(ctx context.Context, center string) ([]deed, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(f.address(center), rackJournal)+"/journal", nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var all []deed
	return all, json.NewDecoder(response.Body).Decode(&all)
}

// readers are the clients of all books. They go from one to the next.
type readers struct {
	books []*writers
	stop  context.CancelFunc
	work  sync.WaitGroup
}

func (f *Fleet) startReaders(t *testing.T) *readers {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &readers{stop: cancel}
	for i := range books {
		r.books = append(r.books, f.newWriters(func(center string) string { return f.bookAddress(center, i) }))
	}
	const clients = 2 // a book is written about every twenty seconds: the machine has better things to do
	for client := range clients {
		r.work.Go(func() { r.run(ctx, client, clients) })
	}
	t.Cleanup(r.end)
	return r
}

func (r *readers) end() {
	r.stop()
	r.work.Wait()
}

// run writes at both copies of each book that is this client's.
func (r *readers) run(ctx context.Context, first, step int) {
	pace := time.NewTicker(40 * time.Millisecond)
	defer pace.Stop()
	for n := 0; ; n++ {
		for i := first; i < books; i += step {
			for _, c := range shelfCenters {
				r.books[i].try(ctx, c, n)
			}
			select {
			case <-pace.C:
			case <-ctx.Done():
				return
			}
		}
	}
}

// written is how many books have an acknowledged line in a center.
func (r *readers) written(center string) int {
	n := 0
	for _, w := range r.books {
		if w.count(center) > 0 {
			n++
		}
	}
	return n
}

// audit ends the traffic, and fails the test when a new primary does not hold what was
// acknowledged, or both copies of a book accepted at once.
func (r *readers) audit(t *testing.T, old, now string) {
	t.Helper()
	r.end()
	var acknowledged, lost, double, late int
	for i, w := range r.books {
		l, d, n, err := w.judged(t.Context(), old, now)
		if err != nil {
			t.Fatalf("%s: %v", bookName(i), err)
		}
		if l+d+n > 0 {
			t.Errorf("%s: %d lines lost, %d double, %d by %s after %s had begun", bookName(i), l, d, n, old, now)
		}
		acknowledged += w.count(old) + w.count(now)
		lost, double, late = lost+l, double+d, late+n
	}
	t.Logf("audit: %d lines of %d books were acknowledged; %d lost, %d double, %d by two", acknowledged, books, lost, double, late)
	shared.played.Lost, shared.played.Duplicated, shared.played.TwoEpochs = &lost, &double, &late
}
