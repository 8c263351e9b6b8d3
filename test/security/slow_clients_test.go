package security

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"tripod.dev/tripod/hub"
)

// TestSlowClients connects to every port and says nothing, or begins something and
// never goes on. Each must be hung up on, within a minute: 32 s is upstream's limit of
// a request's headers, ours are shorter.
func TestSlowClients(t *testing.T) {
	h := attacked(t)
	const limit = time.Minute
	said := map[string]func(t *testing.T) net.Conn{}
	for _, port := range []string{hub.APIPort, hub.RPCPort, hub.RaftPort, hub.EtcdPort} {
		said[port+" says nothing"] = func(t *testing.T) net.Conn { return h.raw(t, port) }
		said[port+" begins a handshake"] = func(t *testing.T) net.Conn {
			conn := h.raw(t, port)
			_, _ = conn.Write([]byte{0x16, 0x03, 0x01, 0x02, 0x00, 0x01}) // the rest of the hello never comes
			return conn
		}
	}
	begun := func(port, protocol, text string, certificates ...tls.Certificate) func(t *testing.T) net.Conn {
		return func(t *testing.T) net.Conn {
			conn := h.dial(t, port, h.tls([]string{protocol}, certificates...))
			_, _ = io.WriteString(conn, text)
			return conn
		}
	}
	agent := h.agent(t, "north-1")
	said["6443 begins a request"] = begun(hub.APIPort, "http/1.1", "GET /api HTTP/1.1\r\nHost: hub\r\nX-A: ")
	said["6443 has shaken hands for HTTP/2 and says nothing"] = begun(hub.APIPort, "h2", "")
	said["6444 has shaken hands for gRPC and says nothing"] = begun(hub.RPCPort, "h2", "", agent)
	said["6444 begins a tunnel"] = begun(hub.RPCPort, "tripod-tunnel/1", "replica", agent)
	said["6444 begins to join"] = begun(hub.RPCPort, "tripod-join/1", "\x00\x00")
	said["2379 has shaken hands and says nothing"] = begun(hub.EtcdPort, "h2", "", agent)
	for name, begin := range said {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := begin(t)
			begun := time.Now()
			_ = conn.SetReadDeadline(begun.Add(limit))
			_, err := io.Copy(io.Discard, conn) // until it hangs up
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("after %v it has not hung up", limit)
			}
			t.Logf("it hung up after %v", time.Since(begun).Round(time.Second))
		})
	}
}

func (h *running) raw(t *testing.T, port string) net.Conn {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", h.at(port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}
