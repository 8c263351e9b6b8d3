package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// passedAtOnce is how many brief requests may be with clusters at one time, but for
	// what each cluster has of its own. It is well below the seats that the priority level
	// tripod-gateway never lends (see hub/apiserver), so that who waits in that level's
	// queues waits for the hub's processor and not for a cluster.
	passedAtOnce = 120
	// ownOfCluster and ownOfPerson are always there for a cluster, and in one for a
	// person.
	ownOfCluster, ownOfPerson = 4, 2
)

// shares divides what may be with clusters at one time, so that a cluster that hangs
// takes nothing from the others, nor a person from others who ask the same cluster:
//
//   - a cluster may have as many as are left for all, or four, and
//   - a person may have, of one cluster, half as many as are left for all, or two.
//
// So who is alone gets a third of all, a cluster that hangs takes half of what is left,
// and when much hangs there are still four for each of the others. What lasts (watches,
// logs, upgrades) is not counted.
type shares struct {
	most    int
	metrics *passMetrics

	mu          sync.Mutex
	all         int
	byCluster   map[string]int
	byPassenger map[passenger]int
}

type passenger struct{ cluster, person string }

func newShares(most int, metrics *passMetrics) *shares {
	return &shares{most: most, metrics: metrics, byCluster: map[string]int{}, byPassenger: map[passenger]int{}}
}

// take is false, and why says whose share is used up, if one more would be too many.
// What was taken has to be given back.
func (s *shares) take(who passenger) (why string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := s.most - s.all
	switch {
	case s.byCluster[who.cluster] >= max(left, ownOfCluster):
		s.metrics.refused.WithLabelValues(who.cluster, "cluster").Inc()
		return fmt.Sprintf("%d requests to it are not answered yet", s.byCluster[who.cluster]), false
	case 2*s.byPassenger[who] >= max(left, 2*ownOfPerson):
		s.metrics.refused.WithLabelValues(who.cluster, "person").Inc()
		return fmt.Sprintf("%d of your requests to it are not answered yet", s.byPassenger[who]), false
	}
	s.all++
	s.byCluster[who.cluster]++
	s.byPassenger[who]++
	s.metrics.inFlight.WithLabelValues(who.cluster).Inc()
	return "", true
}

func (s *shares) giveBack(who passenger) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if s.byCluster[who.cluster]--; s.byCluster[who.cluster] == 0 {
		delete(s.byCluster, who.cluster)
	}
	if s.byPassenger[who]--; s.byPassenger[who] == 0 {
		delete(s.byPassenger, who)
	}
	s.metrics.inFlight.WithLabelValues(who.cluster).Dec()
}

// busy is the answer to who has used up a share. With Retry-After, which client-go
// follows in silence: the cluster is there, it is only slow.
func busy(w http.ResponseWriter, cluster, why string) metav1.Status {
	w.Header().Set("Retry-After", "1")
	return metav1.Status{
		Code: http.StatusTooManyRequests, Reason: metav1.StatusReasonTooManyRequests,
		Message: fmt.Sprintf("cluster %q answers slowly: %s; try again when some are", cluster, why),
		Details: &metav1.StatusDetails{Name: cluster, Group: "tripod.dev", Kind: "clusters", RetryAfterSeconds: 1},
	}
}

type passMetrics struct {
	inFlight *prometheus.GaugeVec
	refused  *prometheus.CounterVec
}

func newPassMetrics() *passMetrics {
	return &passMetrics{
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "tripod", Subsystem: "gateway", Name: "requests_in_flight",
			Help: "Brief requests that are with a cluster, by cluster."}, []string{"cluster"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "tripod", Subsystem: "gateway", Name: "requests_refused_total",
			Help: "Requests refused with 429 because the share of the cluster, or of one person in it, was used up."}, []string{"cluster", "share"}),
	}
}

func (m *passMetrics) register(r prometheus.Registerer) error {
	return errors.Join(r.Register(m.inFlight), r.Register(m.refused))
}
