package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"slices"
	"sync"
	"time"

	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

var methods = []string{http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}

// passage is one request on its way to a cluster.
type passage struct {
	route   route
	cluster *v1alpha1.Cluster
	person  user.Info
	auditID string
	upgrade bool
}

type passageKey struct{}

func passageOf(ctx context.Context) *passage {
	p, _ := ctx.Value(passageKey{}).(*passage)
	return p
}

// serveCluster passes a request on to a cluster, as the person who made it.
// The place that route names was found for what reading says.
func (g *Routes) serveCluster(w http.ResponseWriter, r *http.Request, reading *reading, route route) {
	person, ok := request.UserFrom(r.Context())
	if !ok || person.GetName() == "" {
		// Without a name, the agent's own identity would be what acts.
		g.config.Logger.Error("request without an identity reached the gateway", "cluster", route.cluster)
		deny(r.Context(), w, route.cluster, badGateway(route.cluster, "the hub did not tell who is asking"))
		return
	}
	if !expressible(person) {
		deny(r.Context(), w, route.cluster, unspeakable(person.GetName()))
		return
	}
	if !slices.Contains(methods, r.Method) {
		deny(r.Context(), w, route.cluster, badMethod(r.Method))
		return
	}
	cluster, ok := g.config.Clusters.Cluster(route.cluster)
	if !ok {
		deny(r.Context(), w, route.cluster, unknownCluster(route.cluster))
		return
	}
	if cluster.Spec.Admission != v1alpha1.AdmissionAccepted {
		deny(r.Context(), w, route.cluster, away(route.cluster, "it is not accepted yet: accept it with spec.admission: Accepted"))
		return
	}
	if who := (passenger{route.cluster, person.GetName()}); !g.lasts(r, reading) {
		why, ok := g.shares.take(who)
		if !ok {
			deny(r.Context(), w, route.cluster, busy(w, route.cluster, why))
			return
		}
		defer g.shares.giveBack(who)
	}
	r, done := inTime(r)
	defer done()
	auditID, _ := audit.AuditIDFrom(r.Context())
	p := &passage{route: route, cluster: cluster, person: person, auditID: string(auditID), upgrade: reading.upgrade}
	g.recordPassed(r, reading, p)
	g.proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), passageKey{}, p)))
}

// answerTime is what is left of a request's time to say that the cluster has used it up.
const answerTime = 200 * time.Millisecond

// inTime returns r so that it ends a little before the time-out filter would answer,
// which knows no cluster, and would cut off an answer that has begun. What passes
// through has no such filter (Passes).
func inTime(r *http.Request) (*http.Request, context.CancelFunc) {
	deadline, ok := r.Context().Deadline()
	if !ok || r.ContentLength == 0 {
		return r, func() {}
	}
	ctx, cancel := context.WithDeadline(r.Context(), deadline.Add(-min(answerTime, time.Until(deadline)/2)))
	return r.WithContext(ctx), cancel
}

// newProxy makes the proxy. Rewrite, not Director: it runs after the hop-by-hop
// headers were removed, so that a client's "Connection: Impersonate-User" cannot
// take away what is set there.
func newProxy(through http.RoundTripper, logger *slog.Logger) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		// Without a FlushInterval: what comes without a length, as a watch does, is
		// flushed at once all the same; the rest would only be cut into more frames.
		Transport:      through,
		BufferPool:     &buffers{},
		Rewrite:        rewrite,
		ModifyResponse: inspect,
		ErrorHandler:   explain,
		ErrorLog:       slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
}

func rewrite(pr *httputil.ProxyRequest) {
	p := passageOf(pr.In.Context())
	inner := *p.route.inner
	pr.Out.URL = &inner
	clean(pr.Out.Header)
	impersonate(pr.Out.Header, p.person)
	if p.auditID != "" {
		pr.Out.Header.Set("Audit-Id", p.auditID)
	}
	if v := voyageOf(pr.In.Context()); v != nil {
		v.prepare(pr.Out.Header)
	}
}

var (
	errRedirected  = errors.New("it answered with a redirect, which is not passed on")
	errUnauthentic = errors.New("it refused the credentials of its own agent, or of this hub: see the agent's log")
)

// setHere are headers that are the hub's to set, in their canonical form.
var setHere = [...]string{"Audit-Id", "Cache-Control", "Set-Cookie", "Location", "Strict-Transport-Security",
	"X-Kubernetes-Pf-Flowschema-Uid", "X-Kubernetes-Pf-Prioritylevel-Uid"}

// inspect refuses answers that must not reach a client, and removes headers that
// the hub's own filters set.
func inspect(response *http.Response) error {
	switch response.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return errRedirected
	case http.StatusUnauthorized:
		return errUnauthentic
	}
	for _, name := range setHere {
		delete(response.Header, name)
	}
	if v := voyageOf(response.Request.Context()); v != nil {
		return v.answer(response)
	}
	return nil
}

// explain answers for a cluster that did not.
func explain(w http.ResponseWriter, r *http.Request, err error) {
	name := passageOf(r.Context()).route.cluster
	var unreached *dialError
	if v := voyageOf(r.Context()); v != nil && v.explain(w, r, err) {
		return
	}
	switch {
	case errors.Is(context.Cause(r.Context()), errRevoked):
		refuse(w, revoked())
	case errors.As(err, &unreached):
		refuse(w, away(name, unreached.Error()))
	case errors.Is(r.Context().Err(), context.DeadlineExceeded):
		refuse(w, late(name))
	case r.Context().Err() != nil:
		// The client is gone; nobody reads an answer.
		w.WriteHeader(http.StatusGatewayTimeout)
	default:
		refuse(w, badGateway(name, err.Error()))
	}
}

// buffers are what bodies are copied through; ReverseProxy makes one for each request.
type buffers struct{ free sync.Pool }

const bufferBytes = 32 << 10

// Get implements httputil.BufferPool.
func (b *buffers) Get() []byte {
	if free, ok := b.free.Get().(*[bufferBytes]byte); ok {
		return free[:]
	}
	return make([]byte, bufferBytes)
}

// Put implements httputil.BufferPool.
func (b *buffers) Put(buffer []byte) { b.free.Put((*[bufferBytes]byte)(buffer)) }
