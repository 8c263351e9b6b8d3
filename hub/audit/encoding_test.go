package audit

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	authnv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/apiserver/pkg/audit"
	"sigs.k8s.io/randfill"
)

// TestEncodingIsTheAPIs compares with the API's codec. Random events have something in
// every field there is, so a field that a new version of the API brings is missed here
// and not in a log.
func TestEncodingIsTheAPIs(t *testing.T) {
	codec := audit.Codecs.LegacyCodec(auditv1.SchemeGroupVersion)
	compare := func(event *auditinternal.Event) {
		t.Helper()
		want, err := runtime.Encode(codec, event)
		if err != nil {
			t.Fatal(err)
		}
		got, err := appendEvent([]byte("before"), event)
		if err != nil {
			t.Fatal(err)
		}
		if want = append([]byte("before"), bytes.TrimRight(want, "\n")...); !bytes.Equal(got, want) {
			t.Fatalf("got\n%s\nwant\n%s", got, want)
		}
	}
	compare(&auditinternal.Event{})
	compare(&auditinternal.Event{ObjectRef: &auditinternal.ObjectReference{}, SourceIPs: []string{}, Annotations: map[string]string{}})
	for _, text := range []string{`"quoted" \ back`, "<a href='x'>&", "tab\tline\n\x00\x7f", "é€😀\u2028", "\xff\xfe broken", " ~"} {
		one := event(1)
		one.UserAgent, one.RequestURI, one.SourceIPs = text, text, []string{text, "", text}
		one.Annotations = map[string]string{text: text, "b": "", "a": text}
		compare(one)
	}
	one := event(1)
	one.User.Extra = map[string]authnv1.ExtraValue{"nil": nil, "empty": {}, "two": {"a", ""}, `"<`: {"x"}}
	compare(one)
	for _, status := range []metav1.Status{{}, {Code: 200}, {Code: 403, Reason: metav1.StatusReasonForbidden}, {ListMeta: metav1.ListMeta{ResourceVersion: "1"}, Code: 200}} {
		one := event(1)
		one.ResponseStatus = &status
		compare(one)
	}
	chance := rand.New(rand.NewPCG(1, 2))
	for _, empty := range []float64{0, 0.3} {
		fill := randfill.NewWithSeed(int64(chance.Uint64())).NilChance(empty).NumElements(0, 3).Funcs(
			func(at *metav1.MicroTime, c randfill.Continue) { at.Time = time.Unix(c.Int63n(1<<33), c.Int63n(1e9)) },
			func(raw *runtime.Unknown, c randfill.Continue) {
				raw.Raw, raw.ContentType = []byte(`{"a": "<b>"}`), runtime.ContentTypeJSON
			},
			func(meta *metav1.ListMeta, c randfill.Continue) { meta.Continue = c.String(5) },
		)
		for range 500 {
			one := &auditinternal.Event{}
			fill.Fill(one)
			one.TypeMeta = metav1.TypeMeta{}
			compare(one)
		}
	}
}

func BenchmarkProcess(b *testing.B) {
	l, err := Open(Config{Path: b.TempDir() + "/audit.log", Member: "hub-a", Key: key})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Shutdown()
	one := event(1)
	one.Annotations = map[string]string{"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": `RBAC: allowed by ClusterRoleBinding "passer" of ClusterRole "passer" to User "ann"`}
	one.ResponseStatus = &metav1.Status{Code: 200}
	b.ReportAllocs()
	for b.Loop() {
		l.ProcessEvents(one)
	}
}
