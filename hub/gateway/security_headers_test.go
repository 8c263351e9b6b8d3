package gateway

import (
	"net/http"
	"net/textproto"
	"strings"
	"testing"
)

// FuzzClean holds for every header a client may send: what is left lets nobody speak
// as somebody else, whatever case, underscores or list of protocols it hides in.
func FuzzClean(f *testing.F) {
	for _, seed := range [][2]string{
		{"Impersonate-User", "admin"}, {"impersonate_user", "admin"}, {"X-Remote-Group", "system:masters"}, {"Authorization", "Bearer x"},
		{"Sec-WebSocket-Protocol", "a, base64url.bearer.authorization.k8s.io.eA ,b"}, {"X-Forwarded-For", "127.0.0.1"}, {"Cookie", "a=b"}, {"Accept", "*/*"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		// As a server reads it, and as one that does not canonicalize.
		header := http.Header{textproto.CanonicalMIMEHeaderKey(name): {value}, name: {value}}
		clean(header)
		for left, values := range header {
			plain := strings.ReplaceAll(strings.ToLower(left), "_", "-")
			for _, prefix := range []string{"impersonate-", "x-remote-", "x-forwarded-", "proxy-"} {
				if strings.HasPrefix(plain, prefix) {
					t.Fatalf("%q is left", left)
				}
			}
			if plain == "authorization" || plain == "cookie" || plain == "audit-id" {
				t.Fatalf("%q is left", left)
			}
			if left == "Sec-Websocket-Protocol" && strings.Contains(strings.Join(values, ","), websocketToken) && strings.HasPrefix(strings.TrimSpace(values[0]), websocketToken) {
				t.Fatalf("a token is left in %q", values)
			}
		}
	})
}
