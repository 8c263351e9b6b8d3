package apiserver

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	genericapifilters "k8s.io/apiserver/pkg/endpoints/filters"
	genericapiserver "k8s.io/apiserver/pkg/server"
)

// Again judges a request once more, as it was judged when it came: by the same
// filters, with the credentials that it showed.
type Again struct {
	judge http.Handler

	method     string
	url        *url.URL
	header     http.Header
	tls        *tls.ConnectionState
	remoteAddr string
}

type againKey struct{}

// AgainOf returns how to judge the request of ctx again, or nil.
func AgainOf(ctx context.Context) *Again {
	again, _ := ctx.Value(againKey{}).(*Again)
	return again
}

// Credentials is the same for requests that showed the same.
func (a *Again) Credentials() string {
	var leaf any
	if a.tls != nil && len(a.tls.PeerCertificates) > 0 {
		leaf = a.tls.PeerCertificates[0]
	}
	return fmt.Sprintf("%p %v", leaf, a.header)
}

// Allowed is false when the person is not believed any more, or may not do this
// any more. A filter that fails in another way says nothing about that.
func (a *Again) Allowed(ctx context.Context) bool {
	r := (&http.Request{
		Method: a.method, URL: a.url, Header: a.header.Clone(), TLS: a.tls, RemoteAddr: a.remoteAddr,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody,
	}).WithContext(ctx)
	w := &verdict{header: http.Header{}}
	a.judge.ServeHTTP(w, r)
	return w.code != http.StatusUnauthorized && w.code != http.StatusForbidden
}

// verdict is a response of which only the code is of interest.
type verdict struct {
	header http.Header
	code   int
}

func (v *verdict) Header() http.Header { return v.header }

func (v *verdict) WriteHeader(code int) {
	if v.code == 0 {
		v.code = code
	}
}

func (v *verdict) Write(p []byte) (int, error) {
	v.WriteHeader(http.StatusOK)
	return len(p), nil
}

// rememberHow puts an Again into every request, before a filter takes away what
// it was judged by.
func rememberHow(next http.Handler, c *genericapiserver.Config) http.Handler {
	judge := judgement(c)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		again := &Again{judge: judge, method: r.Method, url: r.URL, header: judgedHeaders(r.Header), tls: r.TLS, remoteAddr: r.RemoteAddr}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), againKey{}, again)))
	})
}

// judgedHeaders are those that the filters of judgement read.
func judgedHeaders(from http.Header) http.Header {
	kept := make(http.Header, 2)
	for name, values := range from {
		switch {
		case name == "Authorization", name == "Connection", name == "Upgrade", name == "Sec-Websocket-Protocol", strings.HasPrefix(name, "Impersonate-"):
			kept[name] = append([]string(nil), values...)
		}
	}
	return kept
}

// judgement is the part of upstream's chain that says who asks and whether they
// may, in its order.
func judgement(c *genericapiserver.Config) http.Handler {
	var handler http.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	handler = genericapifilters.WithAuthorization(handler, c.Authorization.Authorizer, c.Serializer)
	handler = impersonating(handler, c)
	refused := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	handler = genericapifilters.WithAuthentication(handler, c.Authentication.Authenticator, refused, c.Authentication.APIAudiences, c.Authentication.RequestHeaderConfig)
	return genericapifilters.WithRequestInfo(handler, c.RequestInfoResolver)
}
