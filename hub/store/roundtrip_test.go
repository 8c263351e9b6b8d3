package store_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tripod.dev/tripod/test/authority"
)

// echoDir makes the test binary a server that gives back what it is sent, with the
// certificate in that folder.
const echoDir = "STORE_ECHO_DIR"

// BenchmarkRoundTrip is one message of 100 bytes over TLS to another process and back: what
// no confirmation of a read by a majority can be faster than (decision 0011).
func BenchmarkRoundTrip(b *testing.B) {
	dir := b.TempDir()
	ca := authority.New(b, "ca")
	ca.Write(b, dir, ca.Issue(b, "echo"))
	server := exec.Command(os.Args[0])
	server.Env = append(os.Environ(), echoDir+"="+dir)
	server.Stderr = os.Stderr
	said, err := server.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := server.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	}()
	address, err := bufio.NewReader(said).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	conn, err := tls.Dial("tcp", strings.TrimSpace(address), &tls.Config{RootCAs: ca.Pool()})
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	message := make([]byte, 100)
	for b.Loop() {
		if _, err := conn.Write(message); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(conn, message); err != nil {
			b.Fatal(err)
		}
	}
}

// echo serves one connection after the other, and says at which address.
func echo(dir string) error {
	certificate, err := tls.LoadX509KeyPair(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	if err != nil {
		return err
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate}})
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		_, _ = io.Copy(conn, conn) // until the other end is gone
		_ = conn.Close()
	}
}
