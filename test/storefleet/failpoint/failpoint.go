// Package failpoint arms the points of package store in a running member, over a
// unix socket.
package failpoint

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"tripod.dev/tripod/hub/store"
)

// Action is what happens at a point.
type Action string

// The actions.
const (
	Crash Action = "crash" // the process is gone, as with SIGKILL
	Error Action = "error" // as from a broken disk or connection
	Delay Action = "delay"
)

// Arm is an instruction for one point.
type Arm struct {
	Point  store.Point
	Action Action
	// Skip is how often the point is passed unharmed first, Times how often the
	// action is done then; 0 means once.
	Skip, Times int
	// Delay of the action Delay.
	Delay time.Duration
}

// Points are those of one member, with what is armed.
type Points struct {
	mu    sync.Mutex
	armed map[store.Point]*Arm
	done  map[store.Point]int
}

// New has arms armed.
func New(arms ...Arm) *Points {
	p := &Points{armed: map[store.Point]*Arm{}, done: map[store.Point]int{}}
	for _, a := range arms {
		p.arm(a)
	}
	return p
}

func (p *Points) arm(a Arm) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a.Times = max(a.Times, 1)
	p.armed[a.Point] = &a
}

// Reach is a store.Failpoints.
func (p *Points) Reach(point store.Point) error {
	action, delay := p.next(point)
	switch action {
	case Crash:
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case Error:
		return fmt.Errorf("failpoint %s", point)
	case Delay:
		<-time.After(delay)
	}
	return nil
}

func (p *Points) next(point store.Point) (Action, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a, ok := p.armed[point]
	if !ok {
		return "", 0
	}
	if a.Skip > 0 {
		a.Skip--
		return "", 0
	}
	if a.Times--; a.Times == 0 {
		delete(p.armed, point)
	}
	p.done[point]++
	return a.Action, a.Delay
}

// Serve takes instructions on the unix socket until ctx is done.
func (p *Points) Serve(ctx context.Context, socket string) error {
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the socket of an earlier process: %w", err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("listen for failpoints: %w", err)
	}
	server := &http.Server{Handler: p, ReadHeaderTimeout: time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve failpoints: %w", err)
	}
	return nil
}

// ServeHTTP implements http.Handler: PUT arms a point, DELETE disarms all; the answer
// is how often each point has acted since the start.
func (p *Points) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodPut:
		var a Arm
		if err := json.NewDecoder(r.Body).Decode(&a); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		p.arm(a)
	case http.MethodDelete:
		p.mu.Lock()
		clear(p.armed)
		p.mu.Unlock()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = json.NewEncoder(w).Encode(p.done) // a peer that is gone needs no answer
}

// Client arms the points of the member with that socket.
type Client struct{ Socket string }

// Arm arms a point.
func (c Client) Arm(ctx context.Context, a Arm) error {
	_, err := c.call(ctx, http.MethodPut, a)
	return err
}

// Disarm disarms all points.
func (c Client) Disarm(ctx context.Context) error {
	_, err := c.call(ctx, http.MethodDelete, nil)
	return err
}

// Done tells how often each point has acted.
func (c Client) Done(ctx context.Context) (map[store.Point]int, error) {
	return c.call(ctx, http.MethodGet, nil)
}

func (c Client) call(ctx context.Context, method string, body any) (map[store.Point]int, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode failpoint: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://member/", bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("ask for failpoints: %w", err)
	}
	dialer := net.Dialer{}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, "unix", c.Socket)
	}}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return nil, fmt.Errorf("failpoints at %s: %w", c.Socket, err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("failpoints at %s: %s: %s: %w", c.Socket, response.Status, answer, err)
	}
	var done map[store.Point]int
	if err := json.Unmarshal(answer, &done); err != nil {
		return nil, fmt.Errorf("failpoints at %s: %w", c.Socket, err)
	}
	return done, nil
}
