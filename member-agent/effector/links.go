package effector

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"tripod.dev/tripod/failover/driver/postgresql"
	"tripod.dev/tripod/failover/guard"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// silence is how old a guard's status may be before it counts as not connected.
const silence = 5 * time.Second

var errDetached = errors.New("the guard's session ended")

// links are the sessions of this cluster's guards, one for each dataset.
type links struct {
	agentv1.UnimplementedGuardsServer
	effector *Effector

	mu   sync.Mutex
	open map[key]*link
}

func newLinks(e *Effector) *links { return &links{effector: e, open: map[key]*link{}} }

// link is one guard's session.
type link struct {
	orders chan *agentv1.GuardOrder
	done   chan struct{}

	mu      sync.Mutex
	status  *agentv1.GuardStatus
	heard   time.Time
	address string
	ask     *agentv1.ProofRequest // the last one
	results map[string]chan *agentv1.GuardResult
}

var commands atomic.Uint64

// Attach serves one guard. The dataset comes from its certificate.
func (l *links) Attach(stream agentv1.Guards_AttachServer) error {
	k, host, err := l.authenticate(stream.Context())
	if err != nil {
		return status.Error(codes.PermissionDenied, err.Error())
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	hello := first.GetHello()
	if hello == nil {
		return status.Error(codes.InvalidArgument, "a guard says hello first")
	}
	n := &link{orders: make(chan *agentv1.GuardOrder, 64), done: make(chan struct{}), results: map[string]chan *agentv1.GuardResult{}}
	n.address = hello.GetAddress()
	if h, port, err := net.SplitHostPort(n.address); err == nil && h == "" {
		n.address = net.JoinHostPort(host, port)
	}
	l.hear(k, n, hello.GetStatus())
	l.add(k, n)
	defer l.remove(k, n)
	l.effector.cfg.Log.Info("guard attached", "dataset", k.String(), "address", n.address, "epoch", hello.GetStatus().GetEpoch())
	n.offer(&agentv1.GuardOrder{Kind: &agentv1.GuardOrder_Welcome{Welcome: &agentv1.GuardWelcome{Replica: l.effector.cfg.Replica}}})
	var sender sync.WaitGroup
	defer sender.Wait()
	defer close(n.done)
	sender.Go(func() { n.send(stream) })
	return l.receive(k, n, stream)
}

// authenticate takes the dataset from the certificate and refuses a guard of
// another cluster.
func (l *links) authenticate(ctx context.Context) (k key, host string, err error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return k, "", errors.New("no peer")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return k, "", errors.New("no certificate")
	}
	id, err := guard.ParseIdentity(info.State.PeerCertificates[0])
	if err != nil {
		return k, "", err
	}
	if id.Cluster != l.effector.cfg.Cluster {
		return k, "", fmt.Errorf("the guard is of cluster %s, this is %s", id.Cluster, l.effector.cfg.Cluster)
	}
	host, _, _ = net.SplitHostPort(p.Addr.String())
	return key{id.Namespace, id.Dataset}, host, nil
}

// offer drops an order that a stuck guard does not take: proofs come again,
// and a command is waited for with a deadline.
func (n *link) offer(o *agentv1.GuardOrder) {
	select {
	case n.orders <- o:
	default:
	}
}

// send is the stream's only sender; a stream that breaks ends its receiver.
func (n *link) send(stream agentv1.Guards_AttachServer) {
	for {
		select {
		case o := <-n.orders:
			if stream.Send(o) != nil {
				return
			}
		case <-n.done:
			return
		}
	}
}

func (l *links) receive(k key, n *link, stream agentv1.Guards_AttachServer) error {
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		switch m := m.GetKind().(type) {
		case *agentv1.GuardMessage_Ask:
			n.set(func() { n.ask = m.Ask })
			l.prove(k, n)
		case *agentv1.GuardMessage_Status:
			l.hear(k, n, m.Status)
		case *agentv1.GuardMessage_Result:
			l.hear(k, n, m.Result.GetStatus())
			n.answer(m.Result)
		}
	}
}

// prove answers the guard's last request with what is granted now.
func (l *links) prove(k key, n *link) {
	ask := n.asked()
	p := l.effector.proof(k, ask, time.Now())
	if p == nil || ask.GetSeq() == 0 {
		return
	}
	p.Seq = ask.GetSeq()
	n.offer(&agentv1.GuardOrder{Kind: &agentv1.GuardOrder_Proof{Proof: p}})
}

// push answers every guard again after a change of the grant.
func (l *links) push() {
	l.mu.Lock()
	open := make(map[key]*link, len(l.open))
	for k, n := range l.open {
		open[k] = n
	}
	l.mu.Unlock()
	for k, n := range open {
		l.prove(k, n)
	}
}

func (l *links) add(k key, n *link) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[k] = n
}

func (l *links) remove(k key, n *link) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[k] == n {
		delete(l.open, k)
	}
}

func (n *link) set(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
}

func (l *links) hear(k key, n *link, s *agentv1.GuardStatus) {
	if s != nil {
		n.set(func() { n.status, n.heard = s, time.Now() })
		l.effector.cfg.Pledges.Saw(&agentv1.DatasetKey{Namespace: k.namespace, Name: k.name}, s.GetEpoch())
	}
}

func (n *link) asked() *agentv1.ProofRequest {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ask
}

// asked is the last question of a dataset's guard, nil if it is not attached.
func (l *links) asked(k key) *agentv1.ProofRequest {
	l.mu.Lock()
	n := l.open[k]
	l.mu.Unlock()
	if n == nil {
		return nil
	}
	return n.asked()
}

func (n *link) answer(r *agentv1.GuardResult) {
	n.mu.Lock()
	reply := n.results[r.GetId()]
	delete(n.results, r.GetId())
	n.mu.Unlock()
	if reply != nil {
		reply <- r
	}
}

// Host returns the guard of a dataset, connected or not.
func (l *links) Host(namespace, name string) postgresql.Host { return host{l, key{namespace, name}} }

type host struct {
	links *links
	key   key
}

func (h host) link() *link {
	h.links.mu.Lock()
	defer h.links.mu.Unlock()
	return h.links.open[h.key]
}

// Status is the guard's latest word, unless it has fallen silent.
func (h host) Status() (*agentv1.GuardStatus, string, bool) {
	n := h.link()
	if n == nil {
		return nil, "", false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.status == nil || time.Since(n.heard) > silence {
		return nil, "", false
	}
	return n.status, n.address, true
}

// Do sends the newest proof and then the command, in this order, and waits.
func (h host) Do(ctx context.Context, cmd *agentv1.GuardCommand) (*agentv1.GuardResult, error) {
	n := h.link()
	if n == nil {
		return nil, errDetached
	}
	cmd.Id = h.links.effector.cfg.Replica + "/" + strconv.FormatInt(started, 36) + "/" + strconv.FormatUint(commands.Add(1), 10)
	reply := make(chan *agentv1.GuardResult, 1)
	n.set(func() { n.results[cmd.Id] = reply })
	defer n.set(func() { delete(n.results, cmd.Id) })
	h.links.prove(h.key, n)
	n.offer(&agentv1.GuardOrder{Kind: &agentv1.GuardOrder_Command{Command: cmd}})
	select {
	case r := <-reply:
		return r, nil
	case <-n.done:
		return nil, errDetached
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the guard: %w", ctx.Err())
	}
}

// started tells the commands of two lives of one pod apart.
var started = time.Now().UnixNano()
