package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"tripod.dev/tripod/failover/driver"
)

// redialFirst is the pause before a primary that does not answer is asked again, which
// doubles up to redialMost: a thousand copies whose primaries are fenced would else dial
// ten thousand times a second.
const (
	redialFirst = 100 * time.Millisecond
	redialMost  = 2 * time.Second
)

// following copies a primary's lines until it ends.
type following struct {
	address string
	cancel  context.CancelFunc

	mu        sync.Mutex
	connected bool
	head      int // how many lines the primary had
}

func follow(r *register, address string) *following {
	ctx, cancel := context.WithCancel(context.Background())
	f := &following{address: address, cancel: cancel}
	go f.run(ctx, r)
	return f
}

// end lets nothing more be appended; the caller holds the register's lock.
func (f *following) end() { f.cancel() }

func (f *following) progress() (head int, state driver.State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.connected {
		return f.head, driver.StateStreaming
	}
	return f.head, driver.StateDetached
}

func (f *following) note(connected bool, head int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.connected, f.head = connected, max(head, f.head)
}

func (f *following) run(ctx context.Context, r *register) {
	pause := redialFirst
	for {
		begun := time.Now()
		_ = f.copy(ctx, r)
		f.note(false, 0)
		if time.Since(begun) > redialMost { // it did follow
			pause = redialFirst
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, redialMost)
		case <-ctx.Done():
			return
		}
	}
}

// copy follows over one connection.
func (f *following) copy(ctx context.Context, r *register) error {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", f.address)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	has, name, err := f.take(ctx, r, 0, "")
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(conn, "FOLLOW %s %d\n", name, has); err != nil {
		return err
	}
	in := bufio.NewScanner(conn)
	for {
		// A primary that is silent for longer than its beats is away.
		if err := conn.SetReadDeadline(time.Now().Add(8 * r.beat)); err != nil {
			return err
		}
		if !in.Scan() {
			return in.Err()
		}
		parts := strings.SplitN(in.Text(), " ", 3)
		if len(parts) != 3 {
			return fmt.Errorf("%s says %q", f.address, in.Text())
		}
		head, err := strconv.Atoi(parts[0])
		if err != nil {
			return err
		}
		timeline, err := strconv.ParseInt(parts[1], 10, 64)
		if err != nil {
			return err
		}
		if has, _, err = f.take(ctx, r, timeline, parts[2]); err != nil {
			return err
		}
		f.note(true, head)
		if _, err := fmt.Fprintln(conn, has); err != nil {
			return err
		}
	}
}

// take appends a line, unless it is empty, and returns how many there are. It is
// durable on return.
func (f *following) take(ctx context.Context, r *register, timeline int64, line string) (int, string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ctx.Err() != nil {
		return 0, "", ctx.Err()
	}
	if timeline != 0 && timeline != r.kept.Timeline {
		k := r.kept
		k.Timeline = timeline
		if err := r.store.keep(k); err != nil {
			return 0, "", err
		}
		r.kept = k
	}
	if line != "" {
		if err := r.writeLocked(line); err != nil {
			return 0, "", err
		}
	}
	return len(r.lines), r.kept.Cluster, nil
}
