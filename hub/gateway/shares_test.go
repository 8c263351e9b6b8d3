package gateway

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// slow is a cluster that answers ann's requests when released, and others at once.
type slow struct {
	release chan struct{}
	mu      sync.Mutex
	held    int
}

func (s *slow) holding() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

func (s *slow) serve(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Impersonate-User") == "ann" && r.URL.Query().Get("watch") == "" {
		s.mu.Lock()
		s.held++
		s.mu.Unlock()
		<-s.release
	}
	if r.URL.Query().Get("watch") != "" {
		w.(http.Flusher).Flush()
		<-s.release
		return
	}
	_, _ = w.Write([]byte("answered"))
}

// as asks as somebody, without the filters.
func (m *member) as(name, path string) int {
	r := httptest.NewRequest("GET", path, nil)
	w := httptest.NewRecorder()
	m.routes.Handler(http.NotFoundHandler()).ServeHTTP(w, r.WithContext(request.WithUser(r.Context(), &user.DefaultInfo{Name: name, Groups: []string{"system:authenticated"}})))
	return w.Code
}

// TestAFloodOfOneClusterLeavesTheOthersTheirShare, and others theirs in the same
// cluster, while not one of the flood's requests is answered.
func TestAFloodOfOneClusterLeavesTheOthersTheirShare(t *testing.T) {
	s := &slow{release: make(chan struct{})}
	m := newMember(t, s.serve)
	var flood sync.WaitGroup
	defer flood.Wait()
	defer close(s.release)
	// What lasts takes no share: more of it than there are shares.
	for range passedAtOnce + 10 {
		flood.Go(func() { m.as("ann", "/clusters/north-1/api/v1/pods?watch=1") })
	}
	codes := make(chan int, 4*passedAtOnce)
	for range 2 * passedAtOnce {
		flood.Go(func() { codes <- m.as("ann", "/clusters/north-1/api/v1/pods") })
	}
	// A third of all are with the cluster in the end, and the rest are told to wait.
	const third = (passedAtOnce + 2) / 3
	for range 2*passedAtOnce - third {
		if code := <-codes; code != http.StatusTooManyRequests {
			t.Fatalf("a request of the flood got %d, want 429", code)
		}
	}
	eventually(t, "a third of all are with the cluster", func() string {
		if held := s.holding(); held != third {
			return fmt.Sprintf("%d are, want %d", held, third)
		}
		return ""
	})
	for who, path := range map[string]string{"bob": "/clusters/north-1/api/v1/pods", "cat": "/clusters/north-2/api/v1/pods"} {
		if code := m.as(who, path); code != http.StatusOK {
			t.Errorf("%s at %s got %d while ann floods, want 200", who, path, code)
		}
	}
	if s.holding() != third || len(codes) != 0 {
		t.Errorf("ann's requests changed meanwhile: %d with the cluster, %d answered", s.holding(), len(codes))
	}
	if got := testutil.ToFloat64(m.routes.shares.metrics.inFlight.WithLabelValues("north-1")); got != third {
		t.Errorf("the metric of what is in flight says %v, want %d", got, third)
	}
	if got := testutil.ToFloat64(m.routes.shares.metrics.refused.WithLabelValues("north-1", "person")); got != 2*passedAtOnce-third {
		t.Errorf("the metric of what was refused says %v, want %d", got, 2*passedAtOnce-third)
	}
}

// TestClustersThatHangLeaveAShare: however many hang, one after the other, and however
// many people ask them; and what they take stays below the seats of the level.
func TestClustersThatHangLeaveAShare(t *testing.T) {
	s := newShares(passedAtOnce, newPassMetrics())
	for hanging := range 16 {
		for p := range 10 * passedAtOnce {
			s.take(passenger{fmt.Sprint("hanging-", hanging), fmt.Sprint("person-", p%50)})
		}
		for i := range ownOfPerson {
			if why, ok := s.take(passenger{"healthy", "ann"}); !ok {
				t.Errorf("%d clusters hang, and request %d to a healthy one is refused: %s", hanging+1, i+1, why)
			}
		}
		for range ownOfPerson {
			s.giveBack(passenger{"healthy", "ann"})
		}
	}
	const seats = 188 // that the level never lends
	if s.all >= seats {
		t.Errorf("16 clusters that hang take %d, and the level has %d seats", s.all, seats)
	}
}

// TestWhatIsGivenBackCanBeTakenAgain, and nothing is kept of who has gone.
func TestWhatIsGivenBackCanBeTakenAgain(t *testing.T) {
	s := newShares(30, newPassMetrics())
	who := passenger{"north-1", "ann"}
	for range 3 {
		taken := 0
		for {
			if _, ok := s.take(who); !ok {
				break
			}
			taken++
		}
		if taken != 10 {
			t.Fatalf("took %d of 30, want 10", taken)
		}
		for range taken {
			s.giveBack(who)
		}
	}
	if s.all != 0 || len(s.byCluster) != 0 || len(s.byPassenger) != 0 {
		t.Errorf("%d, %v, %v are left", s.all, s.byCluster, s.byPassenger)
	}
}
