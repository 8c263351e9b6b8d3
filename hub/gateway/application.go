package gateway

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/streaming/pkg/httpstream"
)

// waitForApplication is what clients are told to wait while an application
// moves, in seconds. client-go then tries ten times by itself, which is longer
// than a failover takes.
const waitForApplication = 2

// CauseUnsettled is the cause in a Status that answers for an application whose
// place has changed, is changing, or cannot be known or reached now.
const CauseUnsettled metav1.CauseType = "ApplicationUnsettled"

// errMoved ends what was under way when an application's place changed.
var errMoved = errors.New("the application is active in another cluster now")

// voyage is one request to an application, on its way to the cluster where that
// is active.
type voyage struct {
	namespace, name string
	at              location
	stamp           string
	// info is what the cluster's own API server will take the request for.
	info *request.RequestInfo
	// writes is true for everything that may change something.
	writes bool
	sent   sent
	// moved says whether the application has left the cluster meanwhile.
	moved func() bool
	// outageIsShort notes that there was no answer.
	outageIsShort func() bool
}

type voyageKey struct{}

func voyageOf(ctx context.Context) *voyage {
	v, _ := ctx.Value(voyageKey{}).(*voyage)
	return v
}

// serveApplication passes a request on to the cluster where the application is
// active by committed state. A write is passed on only if that state is at least
// as new as the request, and no role is changing.
func (g *Routes) serveApplication(w http.ResponseWriter, r *http.Request, reading *reading) {
	route := reading.route
	v := &voyage{namespace: route.namespace, name: route.application, moved: func() bool { return false },
		sent: sent{method: r.Method, contentType: r.Header.Get("Content-Type"), upgrade: reading.upgrade}}
	v.outageIsShort = func() bool { return g.outages.isShort(applicationName{v.namespace, v.name}, time.Now()) }
	info, err := reading.innerInfo(r, g.inner)
	if err != nil {
		refuse(w, badPath(err))
		return
	}
	v.info, v.writes = info, writes(r, info)
	if v.at, err = g.locate(r.Context(), v.namespace, v.name, v.writes); err != nil {
		g.refuseApplication(w, v, err)
		return
	}
	v.stamp = stamp(v.at.serial)
	switch {
	case v.writes && v.at.unsettled != "":
		v.retry(w)
		refuse(w, moving(v, v.at.unsettled))
		return
	case v.writes && v.at.unwritable != "":
		refuse(w, v.status(http.StatusConflict, metav1.StatusReasonConflict, "no write: "+v.at.unwritable))
		return
	}
	r, status := v.unstamp(r, route.inner)
	if status != nil {
		refuse(w, *status)
		return
	}
	audit.AddAuditAnnotation(r.Context(), "gateway.tripod.dev/application", v.namespace+"/"+v.name)
	ctx, cancel := context.WithCancelCause(context.WithValue(r.Context(), voyageKey{}, v))
	defer cancel(nil)
	v.moved = func() bool { return errors.Is(context.Cause(ctx), errMoved) }
	defer g.streams.follow(v, func() { cancel(errMoved) })()
	route.cluster = v.at.cluster
	inner := *route.inner
	inner.RawQuery = r.URL.RawQuery // unstamped
	route.inner = &inner
	g.serveCluster(w, r.WithContext(ctx), reading, route)
}

func (g *Routes) locate(ctx context.Context, namespace, name string, strict bool) (location, error) {
	if g.config.Applications == nil {
		return location{}, errors.New("this hub member does not know of applications")
	}
	standing, err := g.config.Applications.Standing(ctx, namespace, name, strict)
	if err != nil {
		return location{}, err
	}
	return locate(standing)
}

// writes: an upgraded connection carries whatever the client sends. Reviews are
// questions, although they are posted.
func writes(r *http.Request, info *request.RequestInfo) bool {
	if httpstream.IsUpgradeRequest(r) {
		return true
	}
	if slices.Contains([]string{http.MethodGet, http.MethodHead, http.MethodOptions}, r.Method) {
		return false
	}
	return !slices.Contains([]string{"authorization.k8s.io", "authentication.k8s.io"}, info.APIGroup)
}

func (g *Routes) refuseApplication(w http.ResponseWriter, v *voyage, err error) {
	if errors.Is(err, ErrNoSuchApplication) {
		refuse(w, v.status(http.StatusNotFound, metav1.StatusReasonNotFound, "there is no such application: see `tripodctl apps`"))
		return
	}
	v.retry(w)
	refuse(w, moving(v, err.Error()))
}

// status is an answer about the application itself.
func (v *voyage) status(code int32, reason metav1.StatusReason, message string) metav1.Status {
	return metav1.Status{
		Code: code, Reason: reason, Message: fmt.Sprintf("application %s/%s: %s", v.namespace, v.name, message),
		Details: &metav1.StatusDetails{Name: v.name, Group: "tripod.dev", Kind: "applications"},
	}
}

// moving is the answer while the application's place is not settled.
func moving(v *voyage, why string) metav1.Status {
	status := v.status(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, why)
	status.Details.RetryAfterSeconds = waitForApplication
	status.Details.Causes = []metav1.StatusCause{{Type: CauseUnsettled, Message: why}}
	return status
}

// retry has clients try again by themselves: client-go ten times, whatever the
// method. Those that look for what the server can do only in a short outage.
func (v *voyage) retry(w http.ResponseWriter) {
	if short := v.outageIsShort(); short || v.info.IsResourceRequest {
		w.Header().Set("Retry-After", strconv.Itoa(waitForApplication))
	}
}

// explain answers for a request that the cluster did not. What a write that was
// under way did there is not known, and does not count where the application is
// active next, which has never seen it; so one that ends in the same state however
// often it is done is sent again by the client, and no other.
func (v *voyage) explain(w http.ResponseWriter, r *http.Request, err error) (answered bool) {
	var unreached *dialError
	var cut *cutError
	arrived := !errors.As(err, &unreached)
	why := fmt.Sprintf("it left cluster %s while the request was under way", v.at.cluster)
	switch {
	case v.moved():
	case !arrived:
		v.retry(w) // and the cluster's own refusal follows
		return false
	case !errors.As(err, &cut) || r.Context().Err() != nil:
		return false
	default:
		why = fmt.Sprintf("the way to cluster %s broke while the request was under way (%v)", v.at.cluster, err)
	}
	switch {
	case v.moved() && v.info.Verb == "watch" && !v.writes:
		refuse(w, v.expired())
	case arrived && !v.repeatable():
		refuse(w, v.status(http.StatusGatewayTimeout, metav1.StatusReasonTimeout, why+", and what that did there is not known: look and try again"))
	case arrived && v.writes:
		v.retry(w)
		refuse(w, moving(v, why+"; sent again, it ends in the state that it asks for, in the cluster that is active then"))
	default:
		v.retry(w)
		refuse(w, moving(v, why))
	}
	return true
}

// expired is what makes clients list anew.
func (v *voyage) expired() metav1.Status {
	status := v.status(http.StatusGone, metav1.StatusReasonExpired,
		fmt.Sprintf("the resourceVersion or continue token %s: list again without it", errForeign))
	status.TypeMeta, status.Status = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, metav1.StatusFailure
	return status
}

// translates says whether versions in the request and in its answer are marked:
// all of the Kubernetes API, and nothing of what only passes through it.
func (v *voyage) translates() bool {
	return v.info.IsResourceRequest && !slices.Contains([]string{"proxy", "log", "exec", "attach", "portforward"}, v.info.Subresource)
}

// prepare sets headers of the request to the cluster: only encodings that are
// read here may come back.
func (v *voyage) prepare(header http.Header) {
	if !v.translates() {
		return
	}
	header.Del("Accept-Encoding")
	var kept []string
	for _, accepted := range strings.Split(strings.Join(header.Values("Accept"), ","), ",") {
		media, _, err := mime.ParseMediaType(accepted)
		if err == nil && (media == "application/json" || media == "application/vnd.kubernetes.protobuf") {
			kept = append(kept, strings.TrimSpace(accepted))
		}
	}
	if len(kept) == 0 {
		kept = []string{"application/json"}
	}
	header.Set("Accept", strings.Join(kept, ","))
}
