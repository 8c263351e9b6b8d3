package hub

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"tripod.dev/tripod/hub/identity"
	hubstore "tripod.dev/tripod/hub/store"
)

// sealInterval is how often the seal is looked at.
const sealInterval = 250 * time.Millisecond

// seal keeps a hub that was restored from a backup from changing anything in the
// clusters until a person has seen the difference and approved it (safety.md
// section 9). A member without any state yet counts as sealed: what it is about
// to receive may be.
type seal struct {
	incarnation func() uint64
	sealed      func() bool
	broken      chan struct{} // closed for good
}

func newSeal(store *hubstore.Store) *seal {
	return &seal{incarnation: store.Incarnation, sealed: store.Incarnations().Sealed, broken: make(chan struct{})}
}

// Sealed is cheap once the seal is broken, which it stays.
func (s *seal) Sealed() bool {
	select {
	case <-s.broken:
		return false
	default:
		return s.incarnation() == 0 || s.sealed()
	}
}

// run notices the end of the seal.
func (s *seal) run(ctx context.Context) error {
	ticker := time.NewTicker(sealInterval)
	defer ticker.Stop()
	for s.Sealed() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
	close(s.broken)
	<-ctx.Done()
	return ctx.Err()
}

// wait returns when there is no seal.
func (s *seal) wait(ctx context.Context) error {
	select {
	case <-s.broken:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// guard refuses what people and agents would change while the hub is sealed. The
// members' own API servers go on: they keep house in their own store.
func (s *seal) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.Sealed() || onlyReads(r) {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusServiceUnavailable)
		_ = json.NewEncoder(w).Encode(metav1.Status{ // the client is gone if this fails
			TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure,
			Code: http.StatusServiceUnavailable, Reason: metav1.StatusReasonServiceUnavailable,
			Message: "this hub was restored from a backup and is read-only until it is approved: `tripodctl hub restore diff`, then `tripodctl hub restore approve`",
		})
	})
}

// onlyReads: requests that change nothing but in the member's own house.
func onlyReads(r *http.Request) bool {
	if slices.Contains([]string{http.MethodGet, http.MethodHead, http.MethodOptions}, r.Method) {
		return true
	}
	if info, ok := request.RequestInfoFrom(r.Context()); ok {
		reviews := slices.Contains([]string{"authorization.k8s.io", "authentication.k8s.io"}, info.APIGroup)
		// Forgetting that something was to be deleted deletes nothing.
		forgets := info.APIGroup == "tripod.dev" && info.Resource == "tombstones" && r.Method == http.MethodDelete
		if reviews || forgets {
			return true
		}
	}
	who, ok := request.UserFrom(r.Context())
	return ok && (who.GetName() == user.APIServerUser || slices.Contains(who.GetGroups(), identity.OrganisationMembers))
}
