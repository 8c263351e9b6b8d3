// Command remotedialer is Rancher's tunnel as a peer of Tripod's: a server and, in a
// process of its own, a client with a small backend behind it. It is a module of its own,
// so that nothing of it is the product's.
//
//	remotedialer bandwidth DURATION FOLDER    MB/s of one answer that is read as it comes
//	remotedialer stalled DURATION FOLDER      µs, p99 of sixteen clients beside an answer of which nothing is read
//
// FOLDER holds ca.crt, tls.crt and tls.key, of 127.0.0.1. The value is printed alone.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/gorilla/websocket"
	"github.com/rancher/remotedialer"
	"github.com/sirupsen/logrus"
)

func main() {
	logrus.SetOutput(io.Discard)
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "remotedialer:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 3 && args[0] == "agent" {
		return agent(args[1], args[2])
	}
	if len(args) != 3 {
		return fmt.Errorf("got %d arguments, want: bandwidth|stalled DURATION FOLDER", len(args))
	}
	duration, err := time.ParseDuration(args[1])
	if err != nil {
		return fmt.Errorf("duration: %w", err)
	}
	client, stop, err := hub(args[2])
	if err != nil {
		return err
	}
	defer stop()
	measure := map[string]func(*http.Client, time.Duration) (float64, error){"bandwidth": bandwidth, "stalled": stalled}[args[0]]
	if measure == nil {
		return fmt.Errorf("%q is neither bandwidth nor stalled", args[0])
	}
	value, err := measure(client, duration)
	if err == nil {
		fmt.Println(value)
	}
	return err
}

// hub serves the tunnel, starts the agent and returns a client of its backend.
func hub(folder string) (*http.Client, func(), error) {
	server := remotedialer.New(func(*http.Request) (string, bool, error) { return "agent", true, nil }, remotedialer.DefaultErrorWriter)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	go func() {
		_ = http.ServeTLS(listener, server, filepath.Join(folder, "tls.crt"), filepath.Join(folder, "tls.key"))
	}()
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	process := exec.Command(self, "agent", listener.Addr().String(), folder)
	process.Stderr = os.Stderr
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := process.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := process.Start(); err != nil {
		return nil, nil, err
	}
	stop := func() { _ = process.Process.Kill(); _ = process.Wait() }
	var backend string
	if _, err := fmt.Fscanln(out, &backend); err != nil {
		stop()
		return nil, nil, fmt.Errorf("the agent says nothing: %w", err)
	}
	for deadline := time.Now().Add(30 * time.Second); !server.HasSession("agent"); {
		if time.Now().After(deadline) {
			stop()
			return nil, nil, fmt.Errorf("the agent does not connect")
		}
		<-time.After(5 * time.Millisecond)
	}
	dial := server.Dialer("agent")
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dial(ctx, "tcp", backend)
	}}}, stop, nil
}

func agent(hub, folder string) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "here\n") })
	mux.HandleFunc("/flood", func(w http.ResponseWriter, r *http.Request) {
		for chunk := make([]byte, 256<<10); ; {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() { _ = http.Serve(listener, mux) }()
	ca, err := os.ReadFile(filepath.Join(folder, "ca.crt"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	fmt.Println(listener.Addr())
	return remotedialer.ClientConnect(context.Background(), "wss://"+hub, nil, &websocket.Dialer{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots}},
		func(string, string) bool { return true }, nil)
}

func bandwidth(client *http.Client, duration time.Duration) (float64, error) {
	response, err := client.Get("http://agent/flood")
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	buffer, read := make([]byte, 256<<10), 0
	start := time.Now()
	for time.Since(start) < duration {
		n, err := response.Body.Read(buffer)
		if err != nil {
			return 0, err
		}
		read += n
	}
	return float64(read) / 1e6 / time.Since(start).Seconds(), nil
}

func stalled(client *http.Client, duration time.Duration) (float64, error) {
	response, err := client.Get("http://agent/flood") // and nobody reads it
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	var all sync.WaitGroup
	var mu sync.Mutex
	var took []time.Duration
	var failed error
	counted := time.Now().Add(duration / 3)
	for range 16 {
		all.Go(func() {
			for time.Since(counted) < duration {
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				start := time.Now()
				err := echo(ctx, client)
				cancel()
				mu.Lock()
				if err != nil {
					failed = err
				} else if start.After(counted) {
					took = append(took, time.Since(start))
				}
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	all.Wait()
	if failed != nil || len(took) == 0 {
		return 0, fmt.Errorf("%s requests beside a stalled stream: %w", strconv.Itoa(len(took)), failed)
	}
	slices.Sort(took)
	return float64(took[len(took)*99/100].Nanoseconds()) / 1000, nil
}

func echo(ctx context.Context, client *http.Client) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/echo", nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return err
}
