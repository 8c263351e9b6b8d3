package frames

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// tally counts the calls of a connection. While it is stuck, a write ends with the
// connection or its deadline.
type tally struct {
	net.Conn
	reads, writes atomic.Int64
	stuck         atomic.Bool
	entered       chan struct{}
	once          sync.Once
	ended         chan error
}

func newTally(conn net.Conn) *tally {
	return &tally{Conn: conn, entered: make(chan struct{}), ended: make(chan error, 1)}
}

func (t *tally) Read(p []byte) (int, error) { t.reads.Add(1); return t.Conn.Read(p) }

func (t *tally) Write(p []byte) (int, error) {
	t.writes.Add(1)
	if t.stuck.Load() {
		t.once.Do(func() { close(t.entered) })
		why := <-t.ended
		t.end(why) // for who comes later
		return 0, why
	}
	return t.Conn.Write(p)
}

func (t *tally) Close() error {
	t.end(net.ErrClosed)
	return t.Conn.Close()
}

func (t *tally) SetWriteDeadline(at time.Time) error {
	if !at.IsZero() {
		t.end(os.ErrDeadlineExceeded)
	}
	return t.Conn.SetWriteDeadline(at)
}

func (t *tally) end(why error) {
	select {
	case t.ended <- why:
	default:
	}
}

// secured are both ends of a connection: TLS over a Wire over TCP, at the near end with
// a tally between.
func secured(t *testing.T) (near, far *tls.Conn, raw *tally) {
	t.Helper()
	certificate, roots := selfSigned(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	dialled, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = dialled.Close(), accepted.Close() })
	raw = newTally(dialled)
	near = tls.Client(Under(raw), &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: "localhost", DynamicRecordSizingDisabled: true})
	far = tls.Server(Under(accepted), &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certificate}})
	shaken := make(chan error, 1)
	go func() { shaken <- far.Handshake() }()
	if err := errors.Join(near.Handshake(), <-shaken); err != nil {
		t.Fatal(err)
	}
	return near, far, raw
}

// selfSigned is a server's certificate, and who believes it. This folder imports nothing
// of ours, test/authority neither.
func selfSigned(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(crand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

// TestALargeFrameIsOneWrite whatever TLS makes of it, and arrives as it was.
func TestALargeFrameIsOneWrite(t *testing.T) {
	near, far, raw := secured(t)
	conn := Joined(near)
	data := make([]byte, 100<<10)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
	head := []byte{0, typeData, 0, 0, 0, 0, 0, 1, 0, 1, 0x90, 0}
	before := raw.writes.Load()
	written := make(chan error, 1)
	go func() {
		_, err1 := conn.Write(head)
		n, err2 := conn.Write(data)
		if n != len(data) {
			err2 = errors.Join(err2, io.ErrShortWrite)
		}
		written <- errors.Join(err1, err2)
	}()
	got := make([]byte, headerBytes+len(data))
	if _, err := io.ReadFull(far, got); err != nil {
		t.Fatal(err)
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, append(head, data...)) {
		t.Error("other bytes arrived")
	}
	if n := raw.writes.Load() - before; n != 1 {
		t.Errorf("%d writes for a frame, want 1", n)
	}
}

// TestWhatComesIsWhatWasSent, in pieces of all sizes, both ways at once; and when all is
// quiet no buffer is held.
func TestWhatComesIsWhatWasSent(t *testing.T) {
	near, far, _ := secured(t)
	const total = 20 << 20
	send := func(to net.Conn, seed uint64) error {
		chance, content := rand.New(rand.NewPCG(seed, 1)), rand.NewChaCha8([32]byte{byte(seed)})
		to = Joined(to)
		for left := total; left > 0; {
			part := make([]byte, min(left, []int{1, 100, 5000, 20_000, 70_000, 300_000}[chance.IntN(6)]))
			_, _ = content.Read(part)
			left -= len(part)
			head := []byte{0, typeData, 0, 0, 0, 0, 0, 1, 0, byte(len(part) >> 16), byte(len(part) >> 8), byte(len(part))}
			if _, err := to.Write(head); err != nil {
				return err
			}
			if _, err := to.Write(part); err != nil {
				return err
			}
		}
		return nil
	}
	receive := func(from net.Conn, seed uint64) error {
		content := rand.NewChaCha8([32]byte{byte(seed)})
		for left := total; left > 0; {
			head := make([]byte, headerBytes)
			if _, err := io.ReadFull(from, head); err != nil {
				return err
			}
			part := make([]byte, int(head[9])<<16|int(head[10])<<8|int(head[11]))
			want := make([]byte, len(part))
			_, _ = content.Read(want)
			if _, err := io.ReadFull(from, part); err != nil {
				return err
			}
			if !bytes.Equal(part, want) {
				return errors.New("other bytes arrived")
			}
			left -= len(part)
		}
		return nil
	}
	results := make(chan error, 4)
	go func() { results <- send(near, 1) }()
	go func() { results <- receive(far, 1) }()
	go func() { results <- send(far, 2) }()
	go func() { results <- receive(near, 2) }()
	for range 4 {
		if err := <-results; err != nil {
			t.Fatal(err)
		}
	}
	for name, end := range map[string]*tls.Conn{"near": near, "far": far} {
		if w := end.NetConn().(*Wire); w.ahead != nil || w.gathered != nil {
			t.Errorf("%s holds a buffer when all is read", name)
		}
	}
}

// TestWhenMuchComesItIsReadAhead: a megabyte in TLS's pieces takes nine reads.
func TestWhenMuchComesItIsReadAhead(t *testing.T) {
	const total = 1 << 20
	content := make([]byte, total)
	_, _ = rand.NewChaCha8([32]byte{3}).Read(content)
	from := newTally(full{bytes.NewReader(content)})
	wire := Under(from)
	var got []byte
	for piece := make([]byte, 16<<10); ; {
		n, err := wire.Read(piece)
		if got = append(got, piece[:n]...); err != nil {
			break
		}
	}
	if !bytes.Equal(got, content) {
		t.Errorf("%d bytes were read, want %d as they came", len(got), total)
	}
	if reads := from.reads.Load(); reads > 10 { // with the one that finds the end
		t.Errorf("%d reads of the connection, want 10", reads)
	}
	if wire.ahead != nil {
		t.Error("a buffer is held at the end")
	}
}

// full is a connection that always has as much as is asked for.
type full struct{ *bytes.Reader }

func (full) Write([]byte) (int, error)        { return 0, net.ErrClosed }
func (full) Close() error                     { return nil }
func (full) LocalAddr() net.Addr              { return nil }
func (full) RemoteAddr() net.Addr             { return nil }
func (full) SetDeadline(time.Time) error      { return nil }
func (full) SetReadDeadline(time.Time) error  { return nil }
func (full) SetWriteDeadline(time.Time) error { return nil }

// TestAWriteThatNobodyTakesEndsWithTheConnection at once, not after TLS's patience.
func TestAWriteThatNobodyTakesEndsWithTheConnection(t *testing.T) {
	near, _, raw := secured(t)
	conn := Joined(near)
	raw.stuck.Store(true)
	ended := make(chan error, 1)
	go func() {
		_, err1 := conn.Write([]byte{0, typeData, 0, 0, 0, 0, 0, 1, 0, 1, 0x90, 0})
		_, err2 := conn.Write(make([]byte, 100<<10))
		ended <- errors.Join(err1, err2)
	}()
	<-raw.entered
	_ = conn.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("the write ended with %v, want %v", err, net.ErrClosed)
	}
}
