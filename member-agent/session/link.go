package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"tripod.dev/tripod/failover/lease"
	"tripod.dev/tripod/member-agent/redial"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

const (
	maxMessageBytes = 16 << 20
	// What the hub may have sent that has not been read yet, in bytes: on the session,
	// which is the connection's only stream. Fixed, so that gRPC sends no pings to find
	// it out.
	window = 4 << 20
	// unackedTimeout is after how long the kernel gives up a connection whose
	// data the member does not acknowledge: about a TTL.
	unackedTimeout = 5 * time.Second
)

// link is the session with one hub member.
type link struct {
	sessions *Sessions
	address  string
	// installed: the agent was installed with the address.
	installed bool
	log       *slog.Logger
	open      atomic.Bool
	out       atomic.Pointer[outbox]
	// member is the name of the one it leads to; nil until that is known.
	member atomic.Pointer[string]
	stop   context.CancelFunc // of the book's own goroutine
}

// newLink makes a link to the address that the agent was installed with, or to a
// member that the hub told of.
func newLink(s *Sessions, address, member string) *link {
	l := &link{sessions: s, address: address, installed: member == "", log: s.config.Logger.With("member", address)}
	if member != "" {
		l.member.Store(&member)
	}
	return l
}

// leadsTo is the member's name; empty if it is not known yet.
func (l *link) leadsTo() string {
	if name := l.member.Load(); name != nil {
		return *name
	}
	return ""
}

var errHeld = errors.New("another address leads to the same member")

// post is the outbox of the open session, nil while there is none.
func (l *link) post() *outbox { return l.out.Load() }

// run dials for ever, at a pace that depends on how the last attempt ended.
func (l *link) run(ctx context.Context) error {
	config := l.sessions.config
	pace := redial.New(redial.Config{Min: config.RedialMin, Max: config.RedialMax})
	for {
		outcome, err := redial.Unreachable, errHeld
		if !l.sessions.book.heldElsewhere(l) {
			outcome, err = l.once(ctx)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		level, pause := slog.LevelInfo, config.RedialMax
		if errors.Is(err, errHeld) {
			level = slog.LevelDebug
		} else {
			pause = pace.After(outcome, l.sessions.Connected() > 0)
		}
		l.log.Log(ctx, level, "session with hub member is not open; dialling again", "error", err, "pause", pause.Round(time.Millisecond))
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// once holds one session from dialling to its end; it was open, and lost, when it got
// as far as Welcome.
func (l *link) once(ctx context.Context) (redial.Outcome, error) {
	config := l.sessions.config
	var reached atomic.Bool
	failed := func(err error) (redial.Outcome, error) {
		if reached.Load() {
			return redial.Refused, err
		}
		return redial.Unreachable, err
	}
	conn, err := grpc.NewClient("passthrough:///"+l.address,
		grpc.WithTransportCredentials(credentials.NewTLS(config.TLS)),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			conn, err := config.Dial(ctx, address)
			reached.Store(err == nil)
			return conn, err
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes)),
		grpc.WithStaticStreamWindowSize(window),
		grpc.WithStaticConnWindowSize(window),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: unackedTimeout}),
	)
	if err != nil {
		return failed(fmt.Errorf("prepare the connection to hub member %q: %w", l.address, err))
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	patience := time.AfterFunc(config.ConnectTimeout, func() { cancel(errors.New("the hub member does not answer")) })
	defer patience.Stop()
	stream, err := agentv1.NewSessionsClient(conn).Session(ctx)
	if err != nil {
		return failed(fmt.Errorf("dial hub member %q: %w", l.address, err))
	}
	welcome, err := l.greet(stream)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return failed(err)
	}
	patience.Stop()
	return redial.Lost, l.carry(ctx, cancel, welcome, stream)
}

func (l *link) greet(stream agentv1.Sessions_SessionClient) (*agentv1.Welcome, error) {
	incarnation, revision := l.sessions.Seen()
	err := stream.Send(&agentv1.AgentMessage{Kind: &agentv1.AgentMessage_Hello{Hello: &agentv1.Hello{
		Replica: l.sessions.config.Replica, Version: l.sessions.config.Version, Incarnation: incarnation, Revision: revision,
	}}})
	if err != nil {
		_, err = stream.Recv() // the reason is there
		return nil, fmt.Errorf("greet hub member %q: %w", l.address, err)
	}
	message, err := stream.Recv()
	if err != nil {
		return nil, fmt.Errorf("greet hub member %q: %w", l.address, err)
	}
	welcome := message.GetWelcome()
	if welcome == nil {
		return nil, fmt.Errorf("hub member %q answered %T before Welcome: it is not of this version", l.address, message.GetKind())
	}
	if !l.sessions.saw(welcome.GetIncarnation()) {
		return nil, fmt.Errorf("hub member %q is of incarnation %d, this cluster has seen %d: refused until it has rejoined the hub",
			l.address, welcome.GetIncarnation(), incarnation)
	}
	return welcome, nil
}

// carry moves messages both ways until the session ends.
func (l *link) carry(ctx context.Context, hangUp context.CancelCauseFunc, welcome *agentv1.Welcome, stream agentv1.Sessions_SessionClient) error {
	out := newOutbox(welcome.GetDifferences())
	name := welcome.GetMember()
	l.member.Store(&name)
	l.out.Store(out)
	l.open.Store(true)
	l.sessions.book.touch()
	defer l.sessions.book.touch()
	defer l.out.Store(nil)
	defer l.open.Store(false)
	l.sessions.toldTick(time.Duration(welcome.GetTickMillis()) * time.Millisecond)
	l.log.Info("session opened", "name", welcome.GetMember(), "center", welcome.GetCenter())
	l.sessions.config.Receiver.Connected(welcome.GetMember())
	l.sessions.Hurry() // a lease should not wait for the tick
	group, ctx := errgroup.WithContext(ctx)
	views := newViews(l.sessions.config.Receiver.Stream, out)
	defer views.stop()
	group.Go(func() error { return out.run(ctx, stream.Send) })
	group.Go(func() error { return l.receive(ctx, welcome.GetMember(), stream, views) })
	group.Go(func() error { // Recv ends only with the stream's own context
		<-ctx.Done()
		hangUp(context.Cause(ctx))
		return ctx.Err()
	})
	return group.Wait()
}

func (l *link) receive(ctx context.Context, member string, stream agentv1.Sessions_SessionClient, views *views) error {
	for {
		message, err := stream.Recv()
		if err != nil {
			return err
		}
		switch kind := message.GetKind().(type) {
		case *agentv1.HubMessage_Grant:
			if verdict := l.sessions.answer(kind.Grant); verdict != lease.Accepted {
				l.log.Debug("grant not used", "verdict", verdict.String(), "seq", kind.Grant.GetSeq())
			}
		case *agentv1.HubMessage_Desired:
			if l.sessions.saw(kind.Desired.GetIncarnation()) {
				l.sessions.config.Receiver.Desired(member, kind.Desired)
			}
		case *agentv1.HubMessage_Directive:
			l.direct(kind.Directive)
		case *agentv1.HubMessage_Members:
			l.sessions.book.learn(kind.Members)
		case *agentv1.HubMessage_Authorities:
			l.sessions.config.Authorities(kind.Authorities)
		case *agentv1.HubMessage_Subscription:
			views.subscribe(ctx, kind.Subscription.GetStart())
		}
	}
}

// direct outlives the session: the work goes on and its result goes to every
// member that can be reached when it is done.
func (l *link) direct(directive *agentv1.Directive) {
	report := func(result *agentv1.DirectiveResult) {
		l.sessions.Broadcast(&agentv1.AgentMessage{Kind: &agentv1.AgentMessage_Result{Result: result}})
	}
	if !l.sessions.saw(directive.GetIncarnation()) {
		seen, _ := l.sessions.Seen()
		report(&agentv1.DirectiveResult{
			Id: directive.GetId(), Outcome: agentv1.Outcome_OUTCOME_REFUSED,
			Message: fmt.Sprintf("directive of incarnation %d refused: this cluster has seen %d", directive.GetIncarnation(), seen),
		})
		return
	}
	l.sessions.desk.take(directive, report)
}
