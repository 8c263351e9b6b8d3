package gateway

import (
	"context"
	"net/http"
	"net/url"
	"sync"

	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/streaming/pkg/httpstream"
)

// reading is what one request's URL says. The filters ask half a dozen times; they
// all get the first answer. A request whose URL was changed since is read again.
type reading struct {
	// of is the URL that was read.
	of url.URL

	route   route
	upgrade bool

	once    sync.Once
	info    *request.RequestInfo
	infoErr error

	asked    sync.Once
	longLife bool
}

type readingKey struct{}

// Front reads each request once, for all that come behind it.
func (g *Routes) Front(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), readingKey{}, read(r))))
	})
}

func read(r *http.Request) *reading {
	return &reading{of: *r.URL, route: parse(r.URL), upgrade: httpstream.IsUpgradeRequest(r)}
}

// readingOf returns what r says.
func readingOf(r *http.Request) *reading {
	if known, ok := r.Context().Value(readingKey{}).(*reading); ok && known.of == *r.URL {
		return known
	}
	return read(r)
}

// innerInfo is what the server behind the prefix will take r for. The result is
// shared: nobody may change it.
func (d *reading) innerInfo(r *http.Request, resolver request.RequestInfoResolver) (*request.RequestInfo, error) {
	d.once.Do(func() { d.info, d.infoErr = resolver.NewRequestInfo(withURL(r, d.route.inner)) })
	return d.info, d.infoErr
}

// longRunning is LongRunning's answer for what leads to a cluster.
func (d *reading) longRunning(r *http.Request, next request.LongRunningRequestCheck, resolver request.RequestInfoResolver) bool {
	d.asked.Do(func() {
		if d.longLife = d.upgrade; d.upgrade {
			return
		}
		info, err := d.innerInfo(r, resolver)
		d.longLife = err == nil && next(withURL(r, d.route.inner), info)
	})
	return d.longLife
}
