package gateway

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/kubernetes/scheme"
	"pgregory.net/rapid"
)

func TestAVersionIsOfOneClusterAndGrowsInIt(t *testing.T) {
	number := rapid.Uint64Range(1, 1<<62)
	rapid.Check(t, func(t *rapid.T) {
		mine, other := number.Draw(t, "serial"), number.Draw(t, "other serial")
		older, newer := number.Draw(t, "version"), number.Draw(t, "newer version")
		if older > newer {
			older, newer = newer, older
		}
		first, second := stampVersion(strconv.FormatUint(older, 10), stamp(mine)), stampVersion(strconv.FormatUint(newer, 10), stamp(mine))
		if back, err := unstampVersion(first, stamp(mine)); err != nil || back != strconv.FormatUint(older, 10) {
			t.Fatalf("%d came back as %q: %v", older, back, err)
		}
		if order, err := resourceversion.CompareResourceVersion(first, second); err != nil || order > 0 {
			t.Fatalf("%s and %s are in order %d: %v", first, second, order, err)
		}
		if own, err := unstampVersion(first, stamp(other)); mine != other && err == nil {
			t.Fatalf("%s of cluster %d is taken for %s of cluster %d", first, mine, own, other)
		}
	})
}

func TestSpecialVersionsStay(t *testing.T) {
	for _, version := range []string{"", "0"} {
		if got := stampVersion(version, stamp(7)); got != version {
			t.Errorf("%q becomes %q", version, got)
		}
		if got, err := unstampVersion(version, stamp(7)); got != version || err != nil {
			t.Errorf("%q comes in as %q: %v", version, got, err)
		}
	}
	// A version that never went through the route, and the stamp alone.
	for _, version := range []string{"5", "123456", stamp(7), "not a number"} {
		if got, err := unstampVersion(version, stamp(7)); !errors.Is(err, errForeign) {
			t.Errorf("%q is taken for %q: %v", version, got, err)
		}
	}
}

func encode(t *testing.T, e runtime.Encoder, object runtime.Object) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := e.Encode(object, &out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func meta(version string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: `n"}{[\` + version, ResourceVersion: version, Annotations: map[string]string{"resourceVersion": "5", "a": `{"metadata":{"resourceVersion":"5"}}`}}
}

func pod(version string) corev1.Pod {
	return corev1.Pod{
		TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}, ObjectMeta: meta(version),
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Env: []corev1.EnvVar{{ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "x"}}}}}}},
	}
}

func TestVersionsOfObjectsAreMarkedAndNothingElseChanges(t *testing.T) {
	asJSON := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme.Scheme, scheme.Scheme, json.SerializerOptions{})
	asProtobuf := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)
	mark := stamp(42)
	five := "5" + mark
	one, marked := pod("5"), pod(five)
	marked.Name = one.Name
	list := func(p corev1.Pod, version, token string) *corev1.PodList {
		return &corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, ListMeta: metav1.ListMeta{ResourceVersion: version, Continue: token}, Items: []corev1.Pod{p, p}}
	}
	old, changed := "5", five
	eviction := func(version *string) *policyv1.Eviction {
		return &policyv1.Eviction{TypeMeta: metav1.TypeMeta{Kind: "Eviction", APIVersion: "policy/v1"}, ObjectMeta: metav1.ObjectMeta{Name: "p"},
			DeleteOptions: &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: version}}}
	}
	options := func(version *string) *metav1.DeleteOptions {
		return &metav1.DeleteOptions{TypeMeta: metav1.TypeMeta{Kind: "DeleteOptions", APIVersion: "v1"}, Preconditions: &metav1.Preconditions{ResourceVersion: version}}
	}
	for name, test := range map[string]struct{ plain, marked runtime.Object }{
		"an object":       {&one, &marked},
		"a list":          {list(one, "5", "eyJ2"), list(marked, five, mark+".eyJ2")},
		"an eviction":     {eviction(&old), eviction(&changed)},
		"delete options":  {options(&old), options(&changed)},
		"an empty object": {&corev1.ConfigMap{TypeMeta: metav1.TypeMeta{Kind: "ConfigMap", APIVersion: "v1"}}, &corev1.ConfigMap{TypeMeta: metav1.TypeMeta{Kind: "ConfigMap", APIVersion: "v1"}}},
	} {
		t.Run(name, func(t *testing.T) {
			jsonOut, err := mapJSON(encode(t, asJSON, test.plain), objectPlace, stamped(mark))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(encode(t, asJSON, test.marked)), string(jsonOut)); diff != "" {
				t.Errorf("JSON (-want +got):\n%s", diff)
			}
			if back, err := mapJSON(jsonOut, objectPlace, unstamped(mark)); err != nil || !bytes.Equal(back, encode(t, asJSON, test.plain)) {
				t.Errorf("JSON back: %v\n%s", err, back)
			}
			protobufOut, err := mapProtobuf(encode(t, asProtobuf, test.plain), stamped(mark))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(encode(t, asProtobuf, test.marked), protobufOut) {
				t.Error("protobuf differs")
			}
			if back, err := mapProtobuf(protobufOut, unstamped(mark)); err != nil || !bytes.Equal(back, encode(t, asProtobuf, test.plain)) {
				t.Errorf("protobuf back: %v", err)
			}
			if _, err := mapJSON(jsonOut, objectPlace, unstamped(stamp(43))); name != "an empty object" && !errors.Is(err, errForeign) {
				t.Errorf("JSON at another cluster: %v", err)
			}
			if _, err := mapProtobuf(protobufOut, unstamped(stamp(43))); name != "an empty object" && !errors.Is(err, errForeign) {
				t.Errorf("protobuf at another cluster: %v", err)
			}
		})
	}
}

func TestTablesAndEventsAreMarked(t *testing.T) {
	mark := stamp(42)
	table := `{"kind":"Table","metadata":{"resourceVersion":"7","continue":"abc"},"rows":[{"cells":["metadata",{"resourceVersion":"7"}],"object":{"metadata":{"resourceVersion":"6"}}}]}`
	want := `{"kind":"Table","metadata":{"resourceVersion":"7` + mark + `","continue":"` + mark + `.abc"},"rows":[{"cells":["metadata",{"resourceVersion":"7"}],"object":{"metadata":{"resourceVersion":"6` + mark + `"}}}]}`
	got, err := mapJSON([]byte(table), objectPlace, stamped(mark))
	if err != nil || string(got) != want {
		t.Errorf("%v\n%s", err, got)
	}
	event := `{"type":"ADDED","object":` + table + `}`
	if got, err = mapJSON([]byte(event), eventPlace, stamped(mark)); err != nil || string(got) != `{"type":"ADDED","object":`+want+`}` {
		t.Errorf("%v\n%s", err, got)
	}
}

func TestRequestsAreUnmarked(t *testing.T) {
	mark := stamp(42)
	for name, test := range map[string]struct{ media, body, want string }{
		"a merge patch": {"application/merge-patch+json", `{"metadata":{"resourceVersion":"5` + mark + `"}}`, `{"metadata":{"resourceVersion":"5"}}`},
		"a JSON patch": {"application/json-patch+json", `[{"op":"test","path":"/metadata/resourceVersion","value":"5` + mark + `"}]`,
			`[{"op":"test","path":"/metadata/resourceVersion","value":"5"}]`},
		"an applied YAML":       {"application/apply-patch+yaml", "metadata:\n  resourceVersion: \"5" + mark + "\"\n", `{"metadata":{"resourceVersion":"5"}}`},
		"an applied YAML plain": {"application/apply-patch+yaml", "metadata:\n  name: a\n", "metadata:\n  name: a\n"},
		"delete options":        {"application/json", `{"preconditions":{"resourceVersion":"5` + mark + `"}}`, `{"preconditions":{"resourceVersion":"5"}}`},
	} {
		got, err := unstampBody(test.media, []byte(test.body), unstamped(mark))
		if err != nil || string(got) != test.want {
			t.Errorf("%s: %v: %s", name, err, got)
		}
		if _, err := unstampBody(test.media, []byte(test.body), unstamped(stamp(43))); strings.Contains(test.body, mark) && !errors.Is(err, errForeign) {
			t.Errorf("%s at another cluster: %v", name, err)
		}
	}
	if _, err := unstampBody("application/cbor", []byte{0xd9}, unstamped(mark)); !errors.Is(err, errEncoding) {
		t.Errorf("CBOR: %v", err)
	}
}

// unread is a body for which nobody may wait.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("a body of which the request says that it has none was waited for")
	return 0, io.EOF
}

// TestNothingWaitsForABodyThatIsNone: HTTP/2 leaves it to the client when a body of no
// bytes ends, and such a request has no time-out but its context's.
func TestNothingWaitsForABodyThatIsNone(t *testing.T) {
	r := httptest.NewRequest(http.MethodDelete, "/api/v1/namespaces/default/configmaps/a", unread{t})
	r.ContentLength = 0
	v := &voyage{info: &request.RequestInfo{IsResourceRequest: true}, writes: true, stamp: stamp(42)}
	if _, status := v.unstamp(r, r.URL); status != nil {
		t.Errorf("answered with %+v, want nothing", status)
	}
}

func FuzzMapJSON(f *testing.F) {
	for _, seed := range []string{`{"metadata":{"resourceVersion":"5"}}`, `{"items":[{"metadata":{}},1]}`, `[`, `{"a":"\u0041"}`, `{"metadata":{"resourceVersion":"5"`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		same := mapping{version: func(v string) (string, error) { return v, nil }, token: func(v string) (string, error) { return v, nil }}
		out, err := mapJSON([]byte(in), objectPlace, same)
		if err == nil && strings.IndexByte(in, '\\') < 0 && string(out) != in && !strings.ContainsAny(in, "<>&\u2028\u2029\ufffd") && isASCII(in) {
			t.Fatalf("%q became %q", in, out)
		}
	})
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r > 126 || r < 32 }) < 0
}

func TestAWatchEndsBetweenTwoEvents(t *testing.T) {
	for _, encoding := range []string{"JSON", "protobuf"} {
		t.Run(encoding, func(t *testing.T) {
			moved := false
			v := &voyage{namespace: "pay", name: "ledger", stamp: stamp(42), moved: func() bool { return moved }}
			from, to := io.Pipe()
			body := v.watchBody(from, encoding == "protobuf", nil)
			object := pod("5")
			event, half := watchEvent(t, encoding, &object)
			go func() {
				_, _ = to.Write(event)
				_, _ = to.Write(half)
				moved = true
				_ = to.CloseWithError(errors.New("context canceled"))
			}()
			all, err := io.ReadAll(body)
			if err != nil {
				t.Fatal(err)
			}
			var want []byte
			if encoding == "JSON" {
				first, _ := mapJSON(event, eventPlace, stamped(v.stamp))
				last, _ := jsonError(v.expired())
				want = slices.Concat(first, last)
			} else {
				first, _ := mapProtobufEvent(event[4:], stamped(v.stamp))
				last, _ := protobufError(v.expired())
				want = slices.Concat(framed(first), last)
			}
			if !bytes.Equal(all, want) {
				t.Errorf("got  %q\nwant %q", all, want)
			}
		})
	}
}

// watchEvent is an event, and the first half of one.
func watchEvent(t *testing.T, encoding string, object runtime.Object) (event, half []byte) {
	t.Helper()
	if encoding == "JSON" {
		asJSON := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme.Scheme, scheme.Scheme, json.SerializerOptions{})
		event = []byte(`{"type":"ADDED","object":` + strings.TrimSpace(string(encode(t, asJSON, object))) + "}\n")
		return event, event[:len(event)/2]
	}
	raw := encode(t, protobuf.NewSerializer(scheme.Scheme, scheme.Scheme), object)
	whole := metav1.WatchEvent{Type: "ADDED", Object: runtime.RawExtension{Raw: raw}}
	body, err := whole.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	event = framed(body)
	return event, event[:len(event)/2]
}
