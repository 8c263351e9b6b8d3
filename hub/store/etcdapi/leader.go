package etcdapi

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"tripod.dev/tripod/hub/store"
)

// requiresLeader says whether the client asked (clientv3.WithRequireLeader) to
// be told when its member has no leader, instead of waiting on a stream that
// says nothing.
func requiresLeader(ctx context.Context) bool {
	md, ok := metadata.FromIncomingContext(ctx)
	if !ok {
		return false
	}
	v := md.Get(rpctypes.MetadataRequireLeaderKey)
	return len(v) > 0 && v[0] == rpctypes.MetadataHasLeader
}

// leaderStreams ends the streams that require a leader after the member has
// been without one for patience.
type leaderStreams struct {
	store    *store.Store
	patience time.Duration

	mu      sync.Mutex
	streams map[*leaderStream]struct{}
}

type leaderStream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // a grpc.ServerStream carries its own
	end context.CancelCauseFunc
}

func (s *leaderStream) Context() context.Context { return s.ctx }

func newLeaderStreams(s *store.Store, patience time.Duration) *leaderStreams {
	return &leaderStreams{store: s, patience: patience, streams: map[*leaderStream]struct{}{}}
}

func (l *leaderStreams) serve(srv any, ss grpc.ServerStream, handler grpc.StreamHandler) error {
	if err := l.awaitLeader(ss.Context()); err != nil {
		return err
	}
	ctx, end := context.WithCancelCause(ss.Context())
	defer end(nil)
	s := &leaderStream{ServerStream: ss, ctx: ctx, end: end}
	l.mu.Lock()
	l.streams[s] = struct{}{}
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.streams, s)
		l.mu.Unlock()
	}()
	err := handler(srv, s)
	if errors.Is(context.Cause(ctx), rpctypes.ErrGRPCNoLeader) {
		return rpctypes.ErrGRPCNoLeader
	}
	return err
}

// awaitLeader gives a member that has no leader patience to find one. Kubernetes'
// API server watches some hundred prefixes, and tries again without a pause for
// half a minute (reflector.MaxInternalErrorRetryDuration): refused at once, it
// would open thousands of streams a second just when the members have to elect.
func (l *leaderStreams) awaitLeader(ctx context.Context) error {
	if l.store.Membership().LeaderID() != 0 {
		return nil
	}
	ctx, stop := context.WithTimeout(ctx, l.patience)
	defer stop()
	for leadership := range l.store.Subscribe(ctx) {
		if leadership.Leader != "" {
			return nil
		}
	}
	return rpctypes.ErrGRPCNoLeader
}

func (l *leaderStreams) run(ctx context.Context) {
	tick := time.NewTicker(l.patience / 3)
	defer tick.Stop()
	lost := time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		switch {
		case l.store.Membership().LeaderID() != 0:
			lost = time.Time{}
		case lost.IsZero():
			lost = time.Now()
		case time.Since(lost) >= l.patience:
			l.endAll()
		}
	}
}

func (l *leaderStreams) endAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := range l.streams {
		s.end(rpctypes.ErrGRPCNoLeader)
	}
	clear(l.streams)
}
