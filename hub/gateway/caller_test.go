package gateway

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/filters/impersonation"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// TestWhatIsNotNamedIsAdded: upstream's own filters make of what is sent the groups that
// the hub has seen, and nothing else.
func TestWhatIsNotNamedIsAdded(t *testing.T) {
	const all, nobody = user.AllAuthenticated, user.AllUnauthenticated
	for name, test := range map[string]struct {
		person *user.DefaultInfo
		named  []string
	}{
		"beside another group it is added":   {&user.DefaultInfo{Name: "ann", Groups: []string{"dev", all}}, []string{"dev"}},
		"wherever it stands":                 {&user.DefaultInfo{Name: "ann", Groups: []string{all, "dev", "ops"}}, []string{"dev", "ops"}},
		"alone it is named":                  {&user.DefaultInfo{Name: "ann", Groups: []string{all}}, []string{all}},
		"a service account alone":            {&user.DefaultInfo{Name: "system:serviceaccount:a:b", Groups: []string{all}}, []string{all}},
		"a service account with its groups":  {&user.DefaultInfo{Name: "system:serviceaccount:a:b", Groups: []string{"system:serviceaccounts", all}}, []string{"system:serviceaccounts"}},
		"beside its opposite":                {&user.DefaultInfo{Name: "ann", Groups: []string{nobody, all}}, []string{nobody, all}},
		"nobody is not made somebody":        {&user.DefaultInfo{Name: user.Anonymous, Groups: []string{"dev", nobody}}, []string{"dev", nobody}},
		"of nobody with it, it is named too": {&user.DefaultInfo{Name: user.Anonymous, Groups: []string{"dev", all, nobody}}, []string{"dev", all, nobody}},
	} {
		t.Run(name, func(t *testing.T) {
			header := http.Header{}
			impersonate(header, test.person)
			if got := header["Impersonate-Group"]; !slices.Equal(got, test.named) {
				t.Errorf("named %v, want %v", got, test.named)
			}
			for way, filter := range map[string]func(http.Handler, authorizer.Authorizer, runtime.NegotiatedSerializer) http.Handler{
				"before 1.36": impersonation.WithImpersonation, "since 1.36": impersonation.WithConstrainedImpersonation,
			} {
				if got, want := asSeenBehind(filter, header), slices.Sorted(slices.Values(test.person.Groups)); !slices.Equal(got, want) {
					t.Errorf("%s the cluster sees %v, want %v", way, got, want)
				}
			}
		})
	}
}

// asSeenBehind are the groups behind a filter that lets the hub be everybody.
func asSeenBehind(filter func(http.Handler, authorizer.Authorizer, runtime.NegotiatedSerializer) http.Handler, header http.Header) []string {
	var seen []string
	everything := authorizer.AuthorizerFunc(func(_ context.Context, _ authorizer.Attributes) (authorizer.Decision, string, error) {
		return authorizer.DecisionAllow, "", nil
	})
	door := filter(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		person, _ := request.UserFrom(r.Context())
		seen = slices.Sorted(slices.Values(person.GetGroups()))
	}), everything, serializer.NewCodecFactory(runtime.NewScheme()))
	r := httptest.NewRequest(http.MethodGet, "/api/v1/pods", nil)
	r.Header = header.Clone()
	ctx := request.WithUser(r.Context(), &user.DefaultInfo{Name: "tripod:member:a"})
	ctx = request.WithRequestInfo(ctx, &request.RequestInfo{IsResourceRequest: true, Verb: "list", APIVersion: "v1", Resource: "pods", Path: "/api/v1/pods"})
	door.ServeHTTP(httptest.NewRecorder(), r.WithContext(ctx))
	return seen
}
