package hub

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
)

func TestASealedHubIsReadOnly(t *testing.T) {
	var sealed atomic.Bool
	sealed.Store(true)
	s := &seal{incarnation: func() uint64 { return 2 }, sealed: sealed.Load, broken: make(chan struct{})}
	handler := s.guard(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	ask := func(method, who, group, resource string) int {
		ctx := request.WithUser(t.Context(), &user.DefaultInfo{Name: who, Groups: []string{"system:masters"}})
		ctx = request.WithRequestInfo(ctx, &request.RequestInfo{APIGroup: group, Resource: resource})
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(method, "/", nil).WithContext(ctx))
		if w.Code != http.StatusOK && !strings.Contains(w.Body.String(), "tripodctl hub restore diff") {
			t.Errorf("%s %s: the refusal says %s", method, resource, w.Body)
		}
		return w.Code
	}
	tests := map[string]struct {
		method, who, group, resource string
		want                         int
	}{
		"reading":                              {"GET", "alice", "tripod.dev", "datasets", 200},
		"writing":                              {"PUT", "alice", "tripod.dev", "datasets", 503},
		"deleting":                             {"DELETE", "alice", "tripod.dev", "placements", 503},
		"forgetting that something is deleted": {"DELETE", "alice", "tripod.dev", "tombstones", 200},
		"ordering a deletion":                  {"POST", "alice", "tripod.dev", "tombstones", 503},
		"asking what is allowed":               {"POST", "alice", "authorization.k8s.io", "selfsubjectaccessreviews", 200},
		"keeping house":                        {"POST", user.APIServerUser, "", "namespaces", 200},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := ask(test.method, test.who, test.group, test.resource); got != test.want {
				t.Errorf("status %d, want %d", got, test.want)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx) }()
	sealed.Store(false)
	if err := s.wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := ask("PUT", "alice", "tripod.dev", "datasets"); got != 200 {
		t.Errorf("status %d after the approval", got)
	}
	cancel()
	<-ended
}

func TestAMemberWithoutStateCountsAsSealed(t *testing.T) {
	var incarnation atomic.Uint64
	s := &seal{incarnation: incarnation.Load, sealed: func() bool { return false }, broken: make(chan struct{})}
	if !s.Sealed() {
		t.Error("a member that knows nothing yet would tell agents what to do")
	}
	incarnation.Store(1)
	if s.Sealed() {
		t.Error("a hub of the first incarnation is sealed")
	}
}
