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
)

// The data port speaks lines:
//
//	WRITE TEXT     OK N, when every copy of the sync set has it too; or NO WHY
//	READ           N, and then the N lines that the copy holds
//	FOLLOW NAME N  what comes after the first N lines, as N TIMELINE TEXT where N is how
//	               many there are; TEXT is empty when there is nothing new. Each is
//	               answered by how many the copy has then

// beat is how often a copy that follows hears of its primary.
const beat = 250 * time.Millisecond

// port is an open data port with its sessions.
type port struct {
	listener net.Listener
	cancel   context.CancelFunc
	running  sync.WaitGroup
}

func listen(address string, r *register) (*port, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("open the data port: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &port{listener: listener, cancel: cancel}
	p.running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			p.running.Go(func() {
				defer conn.Close()
				stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
				defer stop()
				r.session(ctx, conn)
			})
		}
	})
	return p, nil
}

// end closes the port and every session. The caller holds the register's lock, which
// sessions need to end: nobody waits for them, their connections are dead.
func (p *port) end() {
	p.cancel()
	_ = p.listener.Close()
}

func (r *register) session(ctx context.Context, conn net.Conn) {
	in := bufio.NewScanner(conn)
	for in.Scan() {
		verb, rest, _ := strings.Cut(in.Text(), " ")
		var err error
		switch verb {
		case "WRITE":
			_, err = fmt.Fprintln(conn, r.write(ctx, rest))
		case "READ":
			all := r.all()
			_, err = fmt.Fprintf(conn, "%d\n%s", len(all), strings.Join(append(all, ""), "\n"))
		case "FOLLOW":
			name, from, _ := strings.Cut(rest, " ")
			n, _ := strconv.Atoi(from)
			r.feed(ctx, conn, in, name, n)
			return
		default:
			_, err = fmt.Fprintln(conn, "NO such verb")
		}
		if err != nil {
			return
		}
	}
}

func (r *register) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.lines...)
}

// write answers when the line is at every copy that a write waits for now.
func (r *register) write(ctx context.Context, text string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kept.Mode != primary || r.closing {
		return "NO this copy is a " + string(r.kept.Mode)
	}
	if text == "" {
		return "NO line is empty"
	}
	epoch := r.kept.HeldEpoch
	if err := r.writeLocked(text); err != nil {
		return "NO " + err.Error()
	}
	n := len(r.lines)
	err := r.awaitLocked(ctx, func() []string { return r.kept.SyncSet }, n)
	if err != nil || r.kept.Mode != primary || r.kept.HeldEpoch != epoch {
		return "NO one knows whether it stays"
	}
	return fmt.Sprintf("OK %d", n)
}

// feed sends a copy what it lacks until its connection ends.
func (r *register) feed(ctx context.Context, conn net.Conn, in *bufio.Scanner, name string, has int) {
	every := time.NewTicker(r.beat)
	defer every.Stop()
	defer func() {
		r.mu.Lock()
		delete(r.followers, name)
		r.notifyLocked()
		r.mu.Unlock()
	}()
	for {
		r.mu.Lock()
		if r.kept.Mode != primary || has > len(r.lines) {
			r.mu.Unlock()
			return
		}
		head, timeline, text, changed := len(r.lines), r.kept.Timeline, "", r.changed
		if has < head {
			text = r.lines[has]
		}
		r.mu.Unlock()
		if _, err := fmt.Fprintf(conn, "%d %d %s\n", head, timeline, text); err != nil || !in.Scan() {
			return
		}
		n, err := strconv.Atoi(in.Text())
		if err != nil {
			return
		}
		has = n
		if r.mu.Lock(); r.followers[name] != n {
			r.followers[name] = n
			r.notifyLocked()
			changed = r.changed
		}
		last := len(r.lines) == has
		r.mu.Unlock()
		if !last {
			continue
		}
		select {
		case <-changed:
		case <-every.C:
		case <-ctx.Done():
			return
		}
	}
}

// read asks a copy for all that it holds.
func read(ctx context.Context, address string) ([]string, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if _, err := fmt.Fprintln(conn, "READ"); err != nil {
		return nil, err
	}
	in := bufio.NewScanner(conn)
	if !in.Scan() {
		return nil, fmt.Errorf("no answer: %w", net.ErrClosed)
	}
	n, err := strconv.Atoi(in.Text())
	if err != nil {
		return nil, err
	}
	var all []string
	for len(all) < n && in.Scan() {
		all = append(all, in.Text())
	}
	if len(all) < n {
		return nil, fmt.Errorf("%d of %d lines: %w", len(all), n, net.ErrClosed)
	}
	return all, nil
}
