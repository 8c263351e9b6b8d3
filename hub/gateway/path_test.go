package gateway

import (
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericfilters "k8s.io/apiserver/pkg/server/filters"
	"pgregory.net/rapid"
)

func TestPaths(t *testing.T) {
	type want struct {
		to      destination
		cluster string
		path    string // inner, escaped
		refusal error
	}
	tests := map[string]struct {
		target string
		want   want
	}{
		"the hub's own API":                             {"/api/v1/pods", want{to: toHub, path: "/api/v1/pods"}},
		"a name that only begins like a route":          {"/clusters2/x", want{to: toHub, path: "/clusters2/x"}},
		"a route deeper in a path is no route":          {"/api/clusters/x", want{to: toHub, path: "/api/clusters/x"}},
		"a doubled slash before is no route":            {"//clusters/north-1/api", want{to: toHub, path: "//clusters/north-1/api"}},
		"a cluster's root":                              {"/clusters/north-1", want{to: toCluster, cluster: "north-1", path: "/"}},
		"a cluster's root with a slash":                 {"/clusters/north-1/", want{to: toCluster, cluster: "north-1", path: "/"}},
		"a cluster's pods":                              {"/clusters/north-1/api/v1/pods?watch=1", want{to: toCluster, cluster: "north-1", path: "/api/v1/pods?watch=1"}},
		"a harmless escape stays as it is":              {"/clusters/north-1/api/v1/x%3Ay%2525", want{to: toCluster, cluster: "north-1", path: "/api/v1/x%3Ay%2525"}},
		"a cluster route in a cluster is the cluster's": {"/clusters/a/clusters/b/api", want{to: toCluster, cluster: "a", path: "/clusters/b/api"}},
		"a trailing slash stays":                        {"/clusters/a/api/", want{to: toCluster, cluster: "a", path: "/api/"}},
		"the fleet":                                     {"/fleet/apis/apps/v1/deployments", want{to: toFleet, path: "/apis/apps/v1/deployments"}},
		"the fleet's root":                              {"/fleet", want{to: toFleet, path: "/"}},
		"an application's pods":                         {"/applications/pay/ledger/api/v1/pods?watch=1", want{to: toApplication, cluster: "pay ledger", path: "/api/v1/pods?watch=1"}},
		"an application's root":                         {"/applications/pay/ledger.v2", want{to: toApplication, cluster: "pay ledger.v2", path: "/"}},
		"an application without a name":                 {"/applications/pay", want{to: toNowhere, refusal: errNoApplication}},
		"an application without a name and a slash":     {"/applications/pay/", want{to: toNowhere, refusal: errNoApplication}},
		"dots to another application":                   {"/applications/pay/ledger/../other/api", want{to: toNowhere, refusal: errDots}},
		"an encoded slash in an application":            {"/applications/pay%2Fledger/api", want{to: toNowhere, refusal: errEncoded}},
		"no name":                                       {"/clusters", want{to: toNowhere, refusal: errNoName}},
		"an empty name":                                 {"/clusters/", want{to: toNowhere, refusal: errNoName}},
		"an empty name before a path":                   {"/clusters//api", want{to: toNowhere, refusal: errDots}},
		"dots to another cluster":                       {"/clusters/a/../b/api", want{to: toNowhere, refusal: errDots}},
		"encoded dots":                                  {"/clusters/a/%2e%2E/b", want{to: toNowhere, refusal: errDots}},
		"one dot":                                       {"/clusters/a/./api", want{to: toNowhere, refusal: errDots}},
		"dots out of the fleet":                         {"/fleet/../api", want{to: toNowhere, refusal: errDots}},
		"an encoded slash in the name":                  {"/clusters/a%2Fb/api", want{to: toNowhere, refusal: errEncoded}},
		"an encoded slash in the inner path":            {"/clusters/a/api%2f..", want{to: toNowhere, refusal: errEncoded}},
		"an encoded slash after the route":              {"/clusters%2Fa/api", want{to: toNowhere, refusal: errEncoded}},
		"an encoded letter of the route":                {"/%63lusters/a/api", want{to: toNowhere, refusal: errEncoded}},
		"an encoded backslash":                          {"/clusters/a%5Cb", want{to: toNowhere, refusal: errEncoded}},
		"an encoded zero":                               {"/clusters/a/x%00", want{to: toNowhere, refusal: errEncoded}},
		"an encoded newline":                            {"/clusters/a/x%0d%0aHost:b", want{to: toNowhere, refusal: errEncoded}},
		"a doubled slash in the inner path":             {"/clusters/a/api//v1", want{to: toNowhere, refusal: errDots}},
		"an absolute URI":                               {"http://evil.test/clusters/a/api", want{to: toNowhere, refusal: errAbsolute}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			u, err := url.ParseRequestURI(test.target)
			if err != nil {
				t.Fatal(err)
			}
			route := parse(u)
			got := want{to: route.to, cluster: route.cluster, refusal: route.refusal}
			if route.to == toApplication {
				got.cluster = route.namespace + " " + route.application
			}
			if route.inner != nil {
				got.path = route.inner.RequestURI()
			}
			if got != test.want {
				t.Fatalf("got %+v\nwant %+v", got, test.want)
			}
		})
	}
	for _, name := range []string{"A", "a.b", "-a", "a_b", strings.Repeat("a", 64), "a:80", "a@b", "é"} {
		if route := parse(&url.URL{Path: "/clusters/" + name + "/api"}); route.to != toNowhere {
			t.Errorf("%q is taken for a cluster's name: %+v", name, route)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"/clusters/a/api", "/clusters/a/../b", "/fleet/%2e%2e/api", "/clusters%2fa", "/clusters/a/x%25", "/applications/n/a/api", "/applications/n/../a", "http://h/clusters/a"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, target string) { checkParse(t, target) })
}

func TestARouteIsThePathOrNone(t *testing.T) {
	piece := rapid.SampledFrom([]string{"/", "//", "clusters", "applications", "fleet", "a", "b-1", "..", ".", "%2f", "%2F", "%2e", "%5c", "%00", "%25", "%252f",
		"api", "v1", "?", "#", "http:", "@", ":80", "é", "%c3%a9", "%ff", ";", "*", "\\", " "})
	rapid.Check(t, func(t *rapid.T) {
		checkParse(t, "/"+strings.Join(rapid.SliceOfN(piece, 0, 10).Draw(t, "pieces"), ""))
		checkParse(t, "/applications/"+strings.Join(rapid.SliceOfN(piece, 0, 8).Draw(t, "application"), ""))
		checkParse(t, "/clusters/a/"+strings.Join(rapid.SliceOfN(piece, 0, 6).Draw(t, "inner"), ""))
	})
}

// checkParse holds for every target: a route that leads somewhere is the path
// itself, in one reading only.
func checkParse(t interface{ Fatalf(string, ...any) }, target string) {
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return
	}
	route := parse(u)
	prefix := fleetPrefix
	switch route.to {
	case toFleet:
	case toCluster:
		prefix = clustersPrefix + "/" + route.cluster
	case toApplication:
		prefix = applicationsPrefix + "/" + route.namespace + "/" + route.application
	default:
		return
	}
	// Put together again, the route is the path: nothing was lost or moved.
	whole := prefix + route.inner.EscapedPath()
	if whole != u.EscapedPath() && whole != u.EscapedPath()+"/" {
		t.Fatalf("%q became %q", u.EscapedPath(), whole)
	}
	if route.inner.Host != "" || route.inner.Scheme != "" || strings.Contains(route.inner.Path+"/", "/../") {
		t.Fatalf("%q leads to %v", target, route.inner)
	}
	// What goes out parses to the same path behind.
	again, err := url.ParseRequestURI(route.inner.RequestURI())
	if err != nil || again.Path != route.inner.Path {
		t.Fatalf("%q goes out as %q", target, route.inner.RequestURI())
	}
}

func TestWhatRBACJudges(t *testing.T) {
	factory := &request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}
	long := LongRunning(genericfilters.BasicLongRunningRequestCheck(sets.NewString("watch", "proxy"), sets.NewString("attach", "exec", "proxy", "log", "portforward")), factory)
	type judged struct {
		Resource, Subresource, Name, Namespace, Verb, Path string
		Long                                               bool
	}
	tests := map[string]struct {
		method, target string
		upgrade        bool
		want           judged
	}{
		"a list in a cluster":        {"GET", "/clusters/a/api/v1/pods", false, judged{"clusters", "proxy", "a", "", "get", "/clusters/a/api/v1/pods", false}},
		"a watch in a cluster":       {"GET", "/clusters/a/api/v1/pods?watch=true", false, judged{"clusters", "proxy", "a", "", "get", "/clusters/a/api/v1/pods", true}},
		"logs in a cluster":          {"GET", "/clusters/a/api/v1/namespaces/n/pods/p/log", false, judged{"clusters", "proxy", "a", "", "get", "/clusters/a/api/v1/namespaces/n/pods/p/log", true}},
		"a create in a cluster":      {"POST", "/clusters/a/api/v1/namespaces", false, judged{"clusters", "proxy", "a", "", "create", "/clusters/a/api/v1/namespaces", false}},
		"an apply in a cluster":      {"PATCH", "/clusters/a/api/v1/namespaces/n", false, judged{"clusters", "proxy", "a", "", "patch", "/clusters/a/api/v1/namespaces/n", false}},
		"an update in a cluster":     {"PUT", "/clusters/a/api/v1/namespaces/n", false, judged{"clusters", "proxy", "a", "", "update", "/clusters/a/api/v1/namespaces/n", false}},
		"a delete in a cluster":      {"DELETE", "/clusters/a/api/v1/namespaces/n", false, judged{"clusters", "proxy", "a", "", "delete", "/clusters/a/api/v1/namespaces/n", false}},
		"an exec by GET":             {"GET", "/clusters/a/api/v1/namespaces/n/pods/p/exec", true, judged{"clusters", "proxy", "a", "", "create", "/clusters/a/api/v1/namespaces/n/pods/p/exec", true}},
		"an upgrade of anything":     {"GET", "/clusters/a/api/v1/pods", true, judged{"clusters", "proxy", "a", "", "create", "/clusters/a/api/v1/pods", true}},
		"an odd method":              {"PURGE", "/clusters/a/api", false, judged{"clusters", "proxy", "a", "", "purge", "/clusters/a/api", false}},
		"a list of the fleet":        {"GET", "/fleet/api/v1/namespaces/n/pods", false, judged{"pods", "", "", "n", "list", "/api/v1/namespaces/n/pods", false}},
		"a watch of the fleet":       {"GET", "/fleet/api/v1/pods?watch=true", false, judged{"pods", "", "", "", "watch", "/api/v1/pods", true}},
		"a get from the fleet":       {"GET", "/fleet/apis/apps/v1/namespaces/n/deployments/d", false, judged{"deployments", "", "d", "n", "get", "/apis/apps/v1/namespaces/n/deployments/d", false}},
		"the fleet's discovery":      {"GET", "/fleet/api", false, judged{"", "", "", "", "get", "/api", false}},
		"a list in an application":   {"GET", "/applications/n/a/api/v1/pods", false, judged{"applications", "proxy", "a", "n", "get", "/applications/n/a/api/v1/pods", false}},
		"a watch in an application":  {"GET", "/applications/n/a/api/v1/pods?watch=true", false, judged{"applications", "proxy", "a", "n", "get", "/applications/n/a/api/v1/pods", true}},
		"an apply in an application": {"PATCH", "/applications/n/a/api/v1/namespaces/n", false, judged{"applications", "proxy", "a", "n", "patch", "/applications/n/a/api/v1/namespaces/n", false}},
		"an exec in an application":  {"GET", "/applications/n/a/api/v1/namespaces/n/pods/p/exec", true, judged{"applications", "proxy", "a", "n", "create", "/applications/n/a/api/v1/namespaces/n/pods/p/exec", true}},
		"a path that is refused":     {"GET", "/clusters/a/../b", false, judged{"", "", "", "", "get", "/clusters/a/../b", false}},
		"the hub's own resources":    {"GET", "/api/v1/namespaces/n/secrets/s", false, judged{"secrets", "", "s", "n", "get", "/api/v1/namespaces/n/secrets/s", false}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(test.method, "http://hub"+test.target, nil)
			r.URL.Scheme, r.URL.Host = "", "" // as a server sees it
			if test.upgrade {
				r.Header.Set("Connection", "Upgrade")
				r.Header.Set("Upgrade", "websocket")
			}
			info, err := Resolver(factory).NewRequestInfo(r)
			if err != nil {
				t.Fatal(err)
			}
			got := judged{info.Resource, info.Subresource, info.Name, info.Namespace, info.Verb, info.Path, long(r, info)}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}
