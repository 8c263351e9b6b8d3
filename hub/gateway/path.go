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
	toApplication
	// toNowhere is a path below one of the prefixes that is refused.
	toNowhere
)

// route is a path taken apart.
type route struct {
	to destination
	// cluster is where the request goes; of toApplication, it is found later.
	cluster string
	// namespace and application are set for toApplication.
	namespace, application string
	// inner is the URL behind the prefix: a path and a query, no host.
	inner *url.URL
	// refusal says why the path leads nowhere.
	refusal error
}

const (
	clustersPrefix = "/clusters"
	fleetPrefix    = "/fleet"
	// applicationsPrefix is followed by the namespace and the name.
	applicationsPrefix = "/applications"
)

var (
	errAbsolute      = errors.New("the request names a scheme or host in its URL: send the path only")
	errEncoded       = errors.New("the path holds an encoded slash, backslash, control character or part of a route: send it plain")
	errDots          = errors.New("the path holds an empty, '.' or '..' segment: send it without")
	errNoApplication = errors.New("the path names no application: /applications/NAMESPACE/NAME/…; see `tripodctl apps`")
	errNoName        = errors.New("the path names no cluster: /clusters/NAME/…; see `tripodctl clusters`")
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
	var err error
	switch to {
	case toCluster:
		found.cluster, rest, err = cutName(rest, "a cluster", errNoName, validation.IsDNS1123Label)
	case toApplication:
		if found.namespace, rest, err = cutName(rest, "a namespace", errNoApplication, validation.IsDNS1123Label); err == nil {
			found.application, rest, err = cutName(rest, "an application", errNoApplication, validation.IsDNS1123Subdomain)
		}
	}
	if err != nil {
		return route{to: toNowhere, refusal: err}
	}
	inner, err := innerURL(rest, u.RawQuery)
	if err != nil {
		return route{to: toNowhere, refusal: err}
	}
	found.inner = inner
	return found
}

// cutName takes the name of something from the start of a path.
func cutName(path, of string, missing error, check func(string) []string) (name, rest string, err error) {
	name, rest, _ = strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if name == "" {
		return "", "", missing
	}
	if problems := check(name); len(problems) > 0 {
		return "", "", fmt.Errorf("%q cannot be the name of %s: %s", name, of, problems[0])
	}
	return name, "/" + rest, nil
}

var prefixes = [...]struct {
	prefix string
	to     destination
}{{clustersPrefix, toCluster}, {fleetPrefix, toFleet}, {applicationsPrefix, toApplication}}

func prefixOf(path string) (string, destination) {
	for _, p := range prefixes {
		if rest, ok := strings.CutPrefix(path, p.prefix); ok && (rest == "" || rest[0] == '/') {
			return p.prefix, p.to
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
