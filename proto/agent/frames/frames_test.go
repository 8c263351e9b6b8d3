package frames

import (
	"bytes"
	"io"
	"net"
	"slices"
	"testing"

	"github.com/hashicorp/yamux"
)

// counting notes what is written to it.
type counting struct {
	net.Conn
	writes [][]byte
}

func (c *counting) Write(p []byte) (int, error) {
	c.writes = append(c.writes, slices.Clone(p))
	if c.Conn == nil {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func header(kind byte, length byte) []byte {
	return []byte{0, kind, 0, 0, 0, 0, 0, 1, 0, 0, 0, length}
}

func TestAHeaderGoesOutWithItsData(t *testing.T) {
	to := &counting{}
	conn := Joined(to)
	parts := [][]byte{header(typeData, 5), []byte("hello"), header(1, 9), header(typeData, 0), header(typeData, 3), []byte("you")}
	for _, part := range parts {
		if n, err := conn.Write(part); n != len(part) || err != nil {
			t.Fatalf("wrote %d of %d bytes, %v", n, len(part), err)
		}
	}
	want := [][]byte{append(header(typeData, 5), "hello"...), header(1, 9), header(typeData, 0), append(header(typeData, 3), "you"...)}
	if !slices.EqualFunc(to.writes, want, bytes.Equal) {
		t.Errorf("the connection got %q, want %q", to.writes, want)
	}
}

func TestLargeFramesDoNotStayInMemory(t *testing.T) {
	conn := Joined(&counting{}).(*joined)
	_, _ = conn.Write(header(typeData, 5))
	_, _ = conn.Write(make([]byte, 1<<20))
	if cap(conn.buffer) > keptCapacity {
		t.Errorf("%d bytes are kept", cap(conn.buffer))
	}
}

// TestYamuxWritesFramesWhole: an update of yamux that wrote in other pieces would be
// noticed here.
func TestYamuxWritesFramesWhole(t *testing.T) {
	near, far := net.Pipe()
	to := &counting{Conn: near}
	config := yamux.DefaultConfig()
	config.LogOutput, config.EnableKeepAlive = io.Discard, false
	client, err := yamux.Client(Joined(to), config)
	if err != nil {
		t.Fatal(err)
	}
	server, err := yamux.Server(far, config)
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan []byte, 1)
	go func() {
		stream, err := server.Accept()
		if err != nil {
			t.Error(err)
			close(read)
			return
		}
		all, _ := io.ReadAll(stream)
		read <- all
	}()
	stream, err := client.Open()
	if err != nil {
		t.Fatal(err)
	}
	var sent []byte
	for i := range 10 {
		part := bytes.Repeat([]byte{byte(i)}, 1000)
		sent = append(sent, part...)
		if _, err := stream.Write(part); err != nil {
			t.Fatal(err)
		}
	}
	_ = stream.Close()
	if got := <-read; !bytes.Equal(got, sent) {
		t.Errorf("%d bytes arrived, want %d in order", len(got), len(sent))
	}
	_, _ = client.Close(), server.Close()
	whole := 0
	for _, write := range to.writes {
		if announces(write) {
			t.Error("a header went out alone")
		}
		if len(write) == headerBytes+1000 {
			whole++
		}
	}
	if whole != 10 {
		t.Errorf("%d frames went out whole, want 10", whole)
	}
}
