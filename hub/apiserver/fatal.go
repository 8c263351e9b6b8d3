package apiserver

import (
	"context"
	"errors"
	"runtime"
	"sync"
)

// errUpstreamGaveUp: upstream code called klog.Fatal.
var errUpstreamGaveUp = errors.New("apiserver: upstream code gave up on a start hook (its message is in the log before this one): restart the member")

// running are the servers of this process, so that a fatal error of upstream's
// ends a server and not the process, which also holds the store and the
// sessions. While any of them is stopping, fatal errors are expected: upstream
// raises one for each start hook that the end of the server has interrupted.
var running = &servers{cancel: map[context.Context]context.CancelCauseFunc{}}

type servers struct {
	mu     sync.Mutex
	cancel map[context.Context]context.CancelCauseFunc
}

// enter registers a server until leave. The context ends with ctx, or with
// errUpstreamGaveUp as its cause.
func (s *servers) enter(ctx context.Context) (inner context.Context, leave func()) {
	inner, cancel := context.WithCancelCause(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cancel[inner] = cancel
	return inner, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.cancel, inner)
		cancel(nil)
	}
}

// exit stands for os.Exit in klog. It ends the goroutine that called it.
func (s *servers) exit(int) {
	s.mu.Lock()
	stopping := false
	for ctx := range s.cancel {
		stopping = stopping || ctx.Err() != nil
	}
	if !stopping {
		for _, cancel := range s.cancel {
			cancel(errUpstreamGaveUp)
		}
	}
	s.mu.Unlock()
	runtime.Goexit()
}
