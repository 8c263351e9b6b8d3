package main

import (
	"context"
	"io"
	"net"
	"sync"
)

// forward joins each connection to one to address, byte by byte, until ctx ends: what
// the agent asks is answered by the rack itself.
func forward(ctx context.Context, listener net.Listener, address string) error {
	var work sync.WaitGroup
	defer work.Wait()
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	for {
		near, err := listener.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		work.Go(func() { join(ctx, near, address) })
	}
}

// join ends both connections when one of them ends.
func join(ctx context.Context, near net.Conn, address string) {
	defer near.Close()
	far, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return // the agent's next call dials again
	}
	defer far.Close()
	ctx, end := context.WithCancel(ctx)
	defer end()
	var work sync.WaitGroup
	for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
		work.Go(func() {
			defer end()
			_, _ = io.Copy(way[0], way[1])
		})
	}
	<-ctx.Done()
	_ = near.Close()
	_ = far.Close()
	work.Wait()
}
