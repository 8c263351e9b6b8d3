package security

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"k8s.io/client-go/rest"

	"tripod.dev/tripod/hub"
)

var resident = regexp.MustCompile(`(?m)^process_resident_memory_bytes (\S+)`)

func (h *running) resident(t *testing.T) float64 {
	t.Helper()
	text, err := h.kube(t, h.admin).RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	bytes, err := strconv.ParseFloat(string(resident.FindSubmatch(text)[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

// TestBombs sends what is small on the wire and large in memory, or endless, as an
// administrator: whoever may write objects must not be able to end the hub.
func TestBombs(t *testing.T) {
	h := attacked(t)
	client, err := rest.HTTPClientFor(h.admin)
	if err != nil {
		t.Fatal(err)
	}
	nested := func(open, closed string, depth int) string {
		return `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"x":` + strings.Repeat(open, depth) + strings.Repeat(closed, depth) + `}`
	}
	laughs := "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
	for i := 1; i < 12; i++ {
		laughs += fmt.Sprintf("a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 10), ","))
	}
	crd := `{"apiVersion":"tripod.dev/v1alpha1","kind":"Placement","metadata":{"name":"x"},"spec":`
	before := h.resident(t)
	for name, bomb := range map[string]struct{ path, contentType, body string }{
		"arrays in arrays":           {"/api/v1/namespaces/default/configmaps", "application/json", nested("[", "]", 1_000_000)},
		"objects in objects":         {"/api/v1/namespaces/default/configmaps", "application/json", nested(`{"a":`, "}", 200_000)},
		"arrays in a custom object":  {"/apis/tripod.dev/v1alpha1/namespaces/default/placements", "application/json", crd + strings.Repeat("[", 500_000) + "}"},
		"aliases of aliases":         {"/api/v1/namespaces/default/configmaps", "application/yaml", "apiVersion: v1\nkind: ConfigMap\n" + laughs},
		"aliases in a custom object": {"/apis/tripod.dev/v1alpha1/namespaces/default/placements", "application/yaml", "apiVersion: tripod.dev/v1alpha1\nkind: Placement\n" + laughs},
		"a body that is too large":   {"/api/v1/namespaces/default/configmaps", "application/json", `{"data":{"a":"` + strings.Repeat("a", 8<<20) + `"}}`},
		"a number of a million digits": {"/api/v1/namespaces/default/configmaps", "application/json",
			`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","generation":` + strings.Repeat("9", 1_000_000) + `}}`},
	} {
		r, err := http.NewRequestWithContext(t.Context(), "POST", h.admin.Host+bomb.path, strings.NewReader(bomb.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", bomb.contentType)
		response, err := client.Do(r)
		if err != nil {
			t.Logf("%s: %v", name, err) // it hung up, which is an answer
			continue
		}
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		if response.StatusCode < 400 || response.StatusCode >= 500 {
			t.Errorf("%s: got %d", name, response.StatusCode)
		}
	}
	h.alive(t)
	if after := h.resident(t); after > before+512<<20 {
		t.Errorf("the hub has grown from %.0f to %.0f MiB", before/(1<<20), after/(1<<20))
	}
}

// TestHeaderBombs: a request's headers are bounded, in number and in length, for
// those whom nobody knows yet as well.
func TestHeaderBombs(t *testing.T) {
	h := attacked(t)
	for name, header := range map[string]string{
		"one long header":    "X-A: " + strings.Repeat("a", 4<<20) + "\r\n",
		"many headers":       strings.Repeat("X-A: "+strings.Repeat("a", 1000)+"\r\n", 4000),
		"a long request URI": "",
	} {
		t.Run(name, func(t *testing.T) {
			conn := h.dial(t, hub.APIPort, h.tls([]string{"http/1.1"}))
			path := "/clusters/north-1/api"
			if header == "" {
				path += "?" + strings.Repeat("a=b&", 1<<20)
			}
			_, _ = io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: hub\r\n"+header+"\r\n") // it may hang up first
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Logf("it hung up: %v", err)
				return
			}
			_ = response.Body.Close()
			if response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
				t.Errorf("got %d", response.StatusCode)
			}
		})
	}
	h.alive(t)
}
