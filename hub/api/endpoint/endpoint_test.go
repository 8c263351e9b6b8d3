package endpoint

import (
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	tests := map[string]struct {
		list string
		want []string
	}{
		"ports are completed":           {"192.0.2.1, 192.0.2.2:7443", []string{"192.0.2.1:6443", "192.0.2.2:7443"}},
		"a URL loses its scheme":        {"https://hub.example.test:6443", []string{"hub.example.test:6443"}},
		"an IPv6 address gets brackets": {"[2001:db8::1]", []string{"[2001:db8::1]:6443"}},
		"an empty list is empty":        {" , ", nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, Parse(test.list, APIPort)); diff != "" {
				t.Errorf("members (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDialerPassesOverAMemberThatIsGone(t *testing.T) {
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = gone.Close()
	alive, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = alive.Close() }()

	conn, err := Dialer([]string{gone.Addr().String(), alive.Addr().String()})(t.Context(), "tcp", "ignored:1")
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	defer func() { _ = conn.Close() }()
	if got, want := conn.RemoteAddr().String(), alive.Addr().String(); got != want {
		t.Errorf("connected to %s, want %s", got, want)
	}
	if _, err := Dialer([]string{gone.Addr().String()})(t.Context(), "tcp", "ignored:1"); err == nil {
		t.Error("a dial with no member alive succeeded")
	}
}
