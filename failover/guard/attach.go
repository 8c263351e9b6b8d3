package guard

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// quietTicks without any answer from an agent make the guard ask the hub.
const quietTicks = 2

// attach keeps a session with every replica of the agent, for ever, and with
// the hub's members while no agent answers.
func (g *Guard) attach(ctx context.Context) error {
	sessions := map[string]context.CancelFunc{}
	var running sync.WaitGroup
	defer running.Wait()
	every := time.NewTicker(g.cfg.Tick)
	defer every.Stop()
	for round := 0; ; round++ {
		wanted := map[string]bool{}
		for _, address := range resolve(ctx, g.cfg.Agents, g.cfg.Tick) {
			wanted[address] = false
		}
		if len(g.cfg.Hubs) > 0 && round > quietTicks && g.quiet() {
			for _, address := range g.cfg.Hubs {
				wanted[address] = true
			}
		}
		for address, hub := range wanted {
			if sessions[address] == nil {
				session, cancel := context.WithCancel(ctx)
				sessions[address] = cancel
				running.Go(func() { g.keepSession(session, address, hub) })
			}
		}
		for address, cancel := range sessions {
			if _, ok := wanted[address]; !ok {
				cancel()
				delete(sessions, address)
			}
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (g *Guard) quiet() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.cfg.Clock() > g.heard.Add(quietTicks*g.cfg.Tick)
}

// resolve turns names into the addresses of every replica. A name that does
// not resolve is left out and asked again.
func resolve(ctx context.Context, targets []string, timeout time.Duration) []string {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var addresses []string
	for _, target := range targets {
		host, port, err := net.SplitHostPort(target)
		if err != nil {
			continue
		}
		if net.ParseIP(host) != nil {
			addresses = append(addresses, target)
			continue
		}
		ips, err := net.DefaultResolver.LookupHost(ctx, host)
		if err != nil {
			continue
		}
		for _, ip := range ips {
			addresses = append(addresses, net.JoinHostPort(ip, port))
		}
	}
	return addresses
}

func (g *Guard) keepSession(ctx context.Context, address string, hub bool) {
	for ctx.Err() == nil {
		err := g.session(ctx, address, hub)
		if ctx.Err() != nil {
			return
		}
		g.cfg.Log.Info("session ended", "dataset", g.cfg.Identity.Key(), "member", address, "error", err)
		pause := g.cfg.Tick/4 + rand.N(g.cfg.Tick/2+1)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// session asks for a proof each tick and takes commands until it breaks.
func (g *Guard) session(ctx context.Context, address string, hub bool) error {
	config, err := g.cfg.Credentials.clientTLS(hub)
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 2 * time.Second}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}))
	if err != nil {
		return err
	}
	defer conn.Close()
	// The stream's context ends with this function, and with it its receiver.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := agentv1.NewGuardsClient(conn).Attach(ctx)
	if err != nil {
		return err
	}
	s := &session{guard: g, stream: stream, hub: hub, asked: map[uint64]Instant{}}
	if err := s.send(&agentv1.GuardMessage{Kind: &agentv1.GuardMessage_Hello{Hello: &agentv1.GuardHello{
		Version: g.cfg.Version, Pod: g.cfg.Pod, Address: g.cfg.Address, Status: g.Status(),
	}}}); err != nil {
		return err
	}
	var receiver sync.WaitGroup
	defer receiver.Wait()
	defer cancel()
	ended := make(chan error, 1)
	receiver.Go(func() { ended <- s.receive() })
	return s.ask(ctx, ended)
}

type session struct {
	guard  *Guard
	stream agentv1.Guards_AttachClient
	hub    bool

	sending sync.Mutex // a stream takes one sender at a time
	mu      sync.Mutex
	seq     uint64
	asked   map[uint64]Instant
}

func (s *session) send(m *agentv1.GuardMessage) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	return s.stream.Send(m)
}

// ask sends a request and the status each tick, and the status on a change.
func (s *session) ask(ctx context.Context, ended <-chan error) error {
	tick := time.NewTicker(s.guard.cfg.Tick)
	defer tick.Stop()
	for {
		if err := s.send(&agentv1.GuardMessage{Kind: &agentv1.GuardMessage_Ask{Ask: &agentv1.ProofRequest{Seq: s.next()}}}); err != nil {
			return err
		}
		for asking := false; !asking; {
			changed := s.guard.changes()
			if err := s.send(&agentv1.GuardMessage{Kind: &agentv1.GuardMessage_Status{Status: s.guard.Status()}}); err != nil {
				return err
			}
			select {
			case <-tick.C:
				asking = true
			case <-changed:
			case err := <-ended:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// next notes the time of asking before the request is sent.
func (s *session) next() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seq++
	s.asked[s.seq] = s.guard.cfg.Clock()
	delete(s.asked, s.seq-64)
	return s.seq
}

func (s *session) when(seq uint64) (Instant, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.asked[seq]
	return at, ok
}

func (s *session) receive() error {
	for {
		order, err := s.stream.Recv()
		if err != nil {
			return err
		}
		switch o := order.GetKind().(type) {
		case *agentv1.GuardOrder_Proof:
			if asked, ok := s.when(o.Proof.GetSeq()); ok {
				if err := s.guard.learn(asked, o.Proof, s.hub); err != nil {
					s.guard.cfg.Log.Warn("proof refused", "dataset", s.guard.cfg.Identity.Key(),
						"epoch", o.Proof.GetRole().GetEpoch(), "error", err)
				}
			}
		case *agentv1.GuardOrder_Command:
			s.guard.command(o.Command, func(r *agentv1.GuardResult) {
				// A result that cannot be sent is asked for again by its id.
				_ = s.send(&agentv1.GuardMessage{Kind: &agentv1.GuardMessage_Result{Result: r}})
			})
		}
	}
}
