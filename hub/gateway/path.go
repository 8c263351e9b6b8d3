package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// destination is where a path leads.
type destination int

const (
	toHub destination = iota
	toCluster
	toFleet
	// toNowhere is a path below /clusters or /fleet that is refused.
	toNowhere
)

// route is a path taken apart.
type route struct {
	to      destination
	cluster string
	// inner is the URL behind the prefix: a path and a query, no host.
	inner *url.URL
	// refusal says why the path leads nowhere.
	refusal error
}

const (
	clustersPrefix = "/clusters"
	fleetPrefix    = "/fleet"
)

var (
	errAbsolute = errors.New("the request names a scheme or host in its URL: send the path only")
	errEncoded  = errors.New("the path holds an encoded slash, backslash, control character or part of a route: send it plain")
	errDots     = errors.New("the path holds an empty, '.' or '..' segment: send it without")
	errNoName   = errors.New("the path names no cluster: /clusters/NAME/…; see `tripodctl clusters`")
)

// parse takes a URL apart. It is the only place where paths are read: a path
// that two readers could read in two ways is refused rather than cleaned.
func parse(u *url.URL) route {
	prefix, to := prefixOf(u.Path)
	if to == toHub {
		return route{to: toHub, inner: u}
	}
	escaped := u.EscapedPath()
	if err := check(u, escaped, prefix); err != nil {
		return route{to: toNowhere, refusal: err}
	}
	rest := strings.TrimPrefix(escaped, prefix)
	found := route{to: to}
	if to == toCluster {
		name, inner, _ := strings.Cut(strings.TrimPrefix(rest, "/"), "/")
		if name == "" {
			return route{to: toNowhere, refusal: errNoName}
		}
		if problems := validation.IsDNS1123Label(name); len(problems) > 0 {
			return route{to: toNowhere, refusal: fmt.Errorf("%q cannot be a cluster's name: %s", name, problems[0])}
		}
		found.cluster, rest = name, "/"+inner
	}
	inner, err := innerURL(rest, u.RawQuery)
	if err != nil {
		return route{to: toNowhere, refusal: err}
	}
	found.inner = inner
	return found
}

func prefixOf(path string) (string, destination) {
	for prefix, to := range map[string]destination{clustersPrefix: toCluster, fleetPrefix: toFleet} {
		if path == prefix || strings.HasPrefix(path, prefix+"/") {
			return prefix, to
		}
	}
	return "", toHub
}

func check(u *url.URL, escaped, prefix string) error {
	if u.Scheme != "" || u.Host != "" || u.Opaque != "" || u.User != nil {
		return errAbsolute
	}
	lower := strings.ToLower(escaped)
	if !strings.HasPrefix(escaped, prefix) || strings.Contains(lower, "%2f") || strings.Contains(lower, "%5c") ||
		strings.ContainsFunc(u.Path, func(r rune) bool { return r == '\\' || r < ' ' || r == 0x7f }) {
		return errEncoded
	}
	segments := strings.Split(u.Path[1:], "/")
	for i, segment := range segments {
		last := i == len(segments)-1
		if segment == "." || segment == ".." || segment == "" && !last {
			return errDots
		}
	}
	return nil
}

func innerURL(escaped, query string) (*url.URL, error) {
	if escaped == "" {
		escaped = "/"
	}
	path, err := url.PathUnescape(escaped)
	if err != nil {
		return nil, errEncoded
	}
	return &url.URL{Path: path, RawPath: escaped, RawQuery: query}, nil
}

// withURL is r with another URL.
func withURL(r *http.Request, u *url.URL) *http.Request {
	inner := new(http.Request)
	*inner = *r
	inner.URL = u
	return inner
}
