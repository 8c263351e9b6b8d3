package apiserver

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// TestPassagesAreJudgedAsEverythingIs sends the same requests through both chains: who
// asks, whether they may, what is answered and what is recorded must be the same.
func TestPassagesAreJudgedAsEverythingIs(t *testing.T) {
	p := newPassages(t)
	passes := p.request(t, "/clusters/north/api/v1/namespaces/default/configmaps/read")
	for name, c := range map[string]struct {
		change func(*http.Request)
		code   int
	}{
		"may pass":                     {func(*http.Request) {}, 200},
		"shows nothing":                {func(r *http.Request) { r.TLS.PeerCertificates = nil }, 403},
		"shows a token that is none":   {func(r *http.Request) { r.TLS.PeerCertificates = nil; r.Header.Set("Authorization", "Bearer x") }, 401},
		"speaks as somebody else":      {func(r *http.Request) { r.Header.Set("Impersonate-User", "bob") }, 403},
		"may not do this":              {func(r *http.Request) { r.Method = http.MethodDelete }, 403},
		"has a time that is none":      {func(r *http.Request) { r.URL.RawQuery = "timeout=x" }, 400},
		"asks for what is not there":   {func(r *http.Request) { r.URL.Path = "/clusters/north/x/../y" }, 403},
		"is from another site's page":  {func(r *http.Request) { r.Header.Set("Origin", "https://elsewhere.example") }, 200},
		"an application, may not pass": {func(r *http.Request) { r.URL.Path = "/applications/shop/orders/api" }, 403},
	} {
		t.Run(name, func(t *testing.T) {
			ask := func(long bool) (*httptest.ResponseRecorder, []auditv1.Event) {
				p.long.Store(long)
				r := passes.Clone(context.Background())
				shown := *passes.TLS
				r.TLS = &shown
				c.change(r)
				w := httptest.NewRecorder()
				p.front.ServeHTTP(w, r)
				return w, p.recorded(t, w.Header().Get("Audit-Id"))
			}
			short, shortRecord := ask(false)
			long, longRecord := ask(true)
			if short.Code != c.code || long.Code != c.code {
				t.Fatalf("got %d through the short chain and %d through upstream's, want %d\n%s\n%s", short.Code, long.Code, c.code, short.Body, long.Body)
			}
			if short.Body.String() != long.Body.String() {
				t.Errorf("the short chain answers %s, upstream's %s", short.Body, long.Body)
			}
			long.Header().Set("Audit-Id", short.Header().Get("Audit-Id"))
			if !reflect.DeepEqual(short.Header(), long.Header()) {
				t.Errorf("the short chain answers with %v, upstream's with %v", short.Header(), long.Header())
			}
			if len(shortRecord) == 0 || !reflect.DeepEqual(shortRecord, longRecord) {
				t.Errorf("of the short chain is recorded\n%+v\nof upstream's\n%+v", shortRecord, longRecord)
			}
		})
	}
}

// TestARequestToASilentClusterEndsInItsTime: a cluster takes it and does not answer.
func TestARequestToASilentClusterEndsInItsTime(t *testing.T) {
	p := newPassages(t)
	for name, body := range map[string]string{"a read": "", "a write": "{}"} {
		t.Run(name, func(t *testing.T) {
			r := p.request(t, "/clusters/north/api")
			r.URL.Path, r.URL.RawQuery = "/clusters/silent/api", "timeout=500ms"
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
			ctx, leave := context.WithCancel(t.Context())
			defer time.AfterFunc(time.Minute, leave).Stop() // who has left gets another answer
			w := httptest.NewRecorder()
			p.front.ServeHTTP(w, r.WithContext(ctx))
			if body := w.Body.String(); w.Code != http.StatusGatewayTimeout || !strings.Contains(body, `"reason":"Timeout"`) || !strings.Contains(body, `cluster \"silent\"`) {
				t.Errorf("got %d %s, want 504 that names the cluster", w.Code, body)
			}
			if record := p.recorded(t, w.Header().Get("Audit-Id")); len(record) == 0 || record[len(record)-1].ResponseStatus.Code != http.StatusGatewayTimeout {
				t.Errorf("recorded is %+v, want a 504", record)
			}
		})
	}
}

// recorded are the events of one request, without what is of the moment.
func (p *passages) recorded(t *testing.T, id string) (events []auditv1.Event) {
	t.Helper()
	file, err := os.Open(filepath.Join(p.hub.dataDir, "audit", "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var event auditv1.Event
		if json.Unmarshal(lines.Bytes(), &event) != nil || string(event.AuditID) != id {
			continue
		}
		moment := auditv1.Event{}
		event.AuditID, event.RequestReceivedTimestamp, event.StageTimestamp = moment.AuditID, moment.RequestReceivedTimestamp, moment.StageTimestamp
		for key := range event.Annotations {
			if strings.HasPrefix(key, "trail.tripod.dev/") { // its place in the chain of the log
				delete(event.Annotations, key)
			}
		}
		events = append(events, event)
	}
	slices.SortStableFunc(events, func(a, b auditv1.Event) int { return cmp.Compare(a.Stage, b.Stage) })
	return events
}
