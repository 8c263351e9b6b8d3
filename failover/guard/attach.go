package guard

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

var errNotNeeded = errors.New("an agent answers again")

// quietTicks without any answer from an agent make the guard ask the hub.
const quietTicks = 2

// peers are the addresses that a guard keeps sessions with. A session that
// stands is never ended because a name no longer resolves to it: a broken name
// service must not stop a healthy database.
type peers struct {
	mu      sync.Mutex
	wanted  map[string]bool // whether it is a hub member
	running map[string]bool
}

// caller keeps the guard's sessions.
type caller struct{ *Guard }

// attach keeps a session with every replica of the agent, for ever, and with
// the hub's members while no agent answers.
func (g caller) attach(ctx context.Context) error {
	p := &peers{running: map[string]bool{}}
	known := map[string][]string{}
	var running sync.WaitGroup
	defer running.Wait()
	every := time.NewTicker(g.cfg.Tick)
	defer every.Stop()
	for round := 0; ; round++ {
		wanted := map[string]bool{}
		for _, target := range g.cfg.Agents {
			if addresses := resolve(ctx, target, g.cfg.Tick); len(addresses) > 0 {
				known[target] = addresses
			}
			for _, address := range known[target] {
				wanted[address] = false
			}
		}
		if round > quietTicks && g.quiet() {
			for _, address := range append(g.cfg.Credentials.hubs(), g.cfg.Hubs...) {
				wanted[address] = true
			}
		}
		for _, address := range p.want(wanted) {
			running.Go(func() { g.keepSession(ctx, p, address, wanted[address]) })
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// want replaces the wanted addresses and returns those to start.
func (p *peers) want(wanted map[string]bool) (start []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wanted = wanted
	for address := range wanted {
		if !p.running[address] {
			p.running[address] = true
			start = append(start, address)
		}
	}
	return start
}

// over reports that an address whose session ended is not to be dialled again.
func (p *peers) over(address string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.wanted[address]; ok {
		return false
	}
	delete(p.running, address)
	return true
}

func (g *Guard) quiet() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.cfg.Clock() > g.heard.Add(quietTicks*g.cfg.Tick)
}

// resolve turns a name into the addresses of every replica; it is empty when
// the name does not resolve now.
func resolve(ctx context.Context, target string, timeout time.Duration) []string {
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		return nil
	}
	if net.ParseIP(host) != nil {
		return []string{target}
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return nil
	}
	addresses := make([]string, 0, len(ips))
	for _, ip := range ips {
		addresses = append(addresses, net.JoinHostPort(ip, port))
	}
	return addresses
}

func (g caller) keepSession(ctx context.Context, p *peers, address string, hub bool) {
	for ctx.Err() == nil {
		err := g.session(ctx, address, hub)
		if ctx.Err() != nil || p.over(address) {
			return
		}
		g.cfg.Log.Info("session ended", "dataset", g.cfg.Identity.Key(), "member", address, "error", err)
		select {
		case <-time.After(g.cfg.Tick/4 + rand.N(g.cfg.Tick/2+1)):
		case <-ctx.Done():
		}
	}
}

// session asks for a proof each tick and takes commands until it breaks.
func (g caller) session(ctx context.Context, address string, hub bool) error {
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
	s := &session{guard: g.Guard, stream: stream, hub: hub, asked: map[uint64]Instant{}}
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
		if err := s.send(&agentv1.GuardMessage{Kind: &agentv1.GuardMessage_Ask{Ask: s.question()}}); err != nil {
			return err
		}
		for asking := false; !asking; {
			changed := s.guard.changes()
			if err := s.send(&agentv1.GuardMessage{Kind: &agentv1.GuardMessage_Status{Status: s.guard.Status()}}); err != nil {
				return err
			}
			select {
			case <-tick.C:
				if s.hub && !s.guard.quiet() {
					return errNotNeeded
				}
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

// question numbers the next one and tells whom the copy surely waits for, looked at
// after the time of asking was noted: what is confirmed later belongs to a later
// question.
func (s *session) question() *agentv1.ProofRequest {
	ask := &agentv1.ProofRequest{Seq: s.next()}
	ask.HeldEpoch, ask.WaitsFor, ask.Running = s.guard.holds()
	return ask
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
			worker{s.guard}.command(o.Command, func(r *agentv1.GuardResult) {
				// A result that cannot be sent is asked for again by its id.
				_ = s.send(&agentv1.GuardMessage{Kind: &agentv1.GuardMessage_Result{Result: r}})
			})
		}
	}
}
