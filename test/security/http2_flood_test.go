package security

import (
	"bytes"
	"crypto/tls"
	"io"
	"regexp"
	"strconv"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"tripod.dev/tripod/hub"
)

// framed is a connection on which a test writes frames.
type framed struct {
	conn   *tls.Conn
	framer *http2.Framer
}

func (h *running) framed(t *testing.T, port string, certificates ...tls.Certificate) *framed {
	t.Helper()
	conn := h.dial(t, port, h.tls([]string{"h2"}, certificates...))
	f := &framed{conn: conn, framer: http2.NewFramer(conn, conn)}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := f.framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return f
}

// drain reads what the server says, so that it is not held up by us, and returns when
// it hangs up.
func (f *framed) drain() <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		reader := http2.NewFramer(io.Discard, f.conn)
		for {
			frame, err := reader.ReadFrame()
			if err != nil {
				return
			}
			if _, gone := frame.(*http2.GoAwayFrame); gone {
				return
			}
		}
	}()
	return done
}

func headers(t *testing.T, path string, extra ...string) []byte {
	t.Helper()
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	pairs := append([]string{":method", "GET", ":scheme", "https", ":path", path, ":authority", "localhost"}, extra...)
	for i := 0; i < len(pairs); i += 2 {
		if err := encoder.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]}); err != nil {
			t.Fatal(err)
		}
	}
	return block.Bytes()
}

// doors are the ports that speak HTTP/2, each with what a stranger to it may have.
func (h *running) doors(t *testing.T) map[string][]tls.Certificate {
	agent := h.agent(t, "north-1")
	return map[string][]tls.Certificate{hub.APIPort: nil, hub.RPCPort: {agent}, hub.EtcdPort: {agent}}
}

var goroutines = regexp.MustCompile(`(?m)^go_goroutines (\d+)`)

func (h *running) goroutines(t *testing.T) int {
	t.Helper()
	text, err := h.kube(t, h.admin).RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(string(goroutines.FindSubmatch(text)[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestHTTP2RapidReset opens and cancels streams as fast as it can (CVE-2023-44487).
// Others are served meanwhile, and the work that is begun is bounded: the server
// hangs up, or works on a connection's streams a few at a time.
func TestHTTP2RapidReset(t *testing.T) {
	h := attacked(t)
	for port, certificates := range h.doors(t) {
		t.Run(port, func(t *testing.T) {
			before := h.goroutines(t)
			f := h.framed(t, port, certificates...)
			gone := f.drain()
			path, extra := "/api/v1/namespaces", []string(nil)
			if port != hub.APIPort {
				path, extra = "/tripod.hub.v1.Admin/Status", []string{"content-type", "application/grpc", "te", "trailers"}
			}
			block := headers(t, path, extra...)
			most, hungUp := 0, false
			for i := 0; i < 20000 && !hungUp; i++ {
				id := uint32(2*i + 1)
				err := f.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true})
				if err == nil {
					err = f.framer.WriteRSTStream(id, http2.ErrCodeCancel)
				}
				select {
				case <-gone:
					hungUp = true
				default:
					hungUp = err != nil
				}
				if i%5000 == 4999 {
					most = max(most, h.goroutines(t)) // served while the flood goes on
				}
			}
			if most > before+3000 {
				t.Errorf("%d goroutines during the flood, %d before", most, before)
			}
			_ = f.conn.Close()
			<-gone
			h.alive(t)
			t.Logf("hung up: %t; goroutines %d before, %d at most", hungUp, before, most)
		})
	}
}

// TestHTTP2ContinuationFlood sends one header block that never ends
// (CVE-2023-45288): the server hangs up long before it has read it all.
func TestHTTP2ContinuationFlood(t *testing.T) {
	h := attacked(t)
	const limit = 64 << 20
	for port, certificates := range h.doors(t) {
		t.Run(port, func(t *testing.T) {
			f := h.framed(t, port, certificates...)
			gone := f.drain()
			if err := f.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: headers(t, "/api")}); err != nil {
				t.Fatal(err)
			}
			// A literal header without indexing: many of them fill a frame.
			piece := bytes.Repeat(append([]byte{0x00, 0x01, 'x', 0x7f, 0x00}, bytes.Repeat([]byte{'a'}, 127)...), 120)
			sent := 0
			for sent < limit {
				if err := f.framer.WriteContinuation(1, false, piece); err != nil {
					break
				}
				sent += len(piece)
				select {
				case <-gone:
				default:
					continue
				}
				break
			}
			if sent >= limit {
				t.Errorf("the server took %d MiB of one header block", sent>>20)
			}
			_ = f.conn.Close()
			<-gone
			h.alive(t)
			t.Logf("it hung up after %d KiB", sent>>10)
		})
	}
}
