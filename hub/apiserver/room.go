package apiserver

import (
	"net/http"

	"k8s.io/apiserver/pkg/authentication/authenticator"
)

// roomBytes is what the filters' frames need.
const roomBytes = 10 << 10

// roomy makes room on the stack of a goroutine that serves one request, before forty
// filters are on it. A new stack has 2 to 8 KiB, and each time it is full it is copied
// with all the frames that are on it: three times a request, which was a twelfth of
// what the hub adds to one.
func roomy(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		makeRoom()
		next.ServeHTTP(w, r)
	})
}

// roomyAuthenticator is roomy for the goroutine of upstream's time-out filter, in which
// authentication comes first.
type roomyAuthenticator struct{ authenticator.Request }

// AuthenticateRequest implements authenticator.Request.
func (a roomyAuthenticator) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	makeRoom()
	return a.Request.AuthenticateRequest(r)
}

// makeRoom has a frame for which a stack must have roomBytes; the stack keeps them.
//
//go:noinline
func makeRoom() {
	var room [roomBytes]byte
	occupy(&room)
}

// occupy keeps the compiler from leaving the frame out.
//
//go:noinline
func occupy(*[roomBytes]byte) {}
