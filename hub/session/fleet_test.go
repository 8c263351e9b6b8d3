package session_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tripod.dev/tripod/failover/lease"
	"tripod.dev/tripod/hub/session"
	agentsession "tripod.dev/tripod/member-agent/session"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

func times() lease.Config {
	c := lease.LAN()
	c.Tick, c.TTL, c.GuardMargin = 100*time.Millisecond, 3*time.Second, 100*time.Millisecond
	return c
}

// eventually waits for a condition with a deadline.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		<-time.After(2 * time.Millisecond)
	}
}

// member is one hub member: a real session server, and everything around it
// played by the test.
type member struct {
	name        string
	fleet       *fleet
	server      *session.Server
	listener    net.Listener
	stop        func()
	incarnation atomic.Uint64

	mu        sync.Mutex
	through   map[string]int // heartbeats by the member that relayed them
	presences map[string]int
	view      []string
	applied   int
	hold      chan struct{}                 // grants wait for it when set
	own       *agentv1.Heartbeat            // the last that it heard itself
	heard     time.Time                     // when
	told      map[string]*agentv1.Heartbeat // the last that each member relayed
}

// fleet is a hub of three members in one process.
type fleet struct {
	all    atomic.Pointer[[]session.Member]
	sealed atomic.Bool

	t       *testing.T
	ca      *pki
	members map[string]*member

	mu      sync.Mutex
	leader  string
	changed chan struct{}
	refused map[string]error
	denied  map[string]bool // names in certificates
	desired map[string]chan *agentv1.DesiredState
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{t: t, ca: newPKI(t), members: map[string]*member{}, leader: "a", changed: make(chan struct{}),
		refused: map[string]error{}, denied: map[string]bool{}, desired: map[string]chan *agentv1.DesiredState{}}
	var all []session.Member
	for _, name := range []string{"a", "b", "c"} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		f.members[name] = &member{name: name, fleet: f, listener: listener, through: map[string]int{}, presences: map[string]int{}}
		f.members[name].incarnation.Store(1)
		all = append(all, session.Member{Name: name, Center: "center-" + name, Address: listener.Addr().String()})
	}
	f.all.Store(&all)
	for _, m := range f.members {
		f.serve(m)
	}
	return f
}

// listed are the members that the hub has now.
func (f *fleet) listed() []session.Member { return *f.all.Load() }

func (f *fleet) serve(m *member) {
	f.t.Helper()
	server, err := session.New(session.Config{
		Name: m.name, Center: "center-" + m.name, Listener: m.listener, TLS: f.ca.server(m.name),
		PeerTLS: func(string) *tls.Config { return f.ca.client("tripod:member:"+m.name, "tripod:members") },
		Members: f.listed, Sealed: f.sealed.Load, Lease: times(), Incarnation: m.incarnation.Load, Leadership: f,
		Identify: identify, Admit: f.admit, Believe: f.believe, Heard: m.hears, Leaser: m, View: m, Applied: m, Desired: f, Logger: f.log("member " + m.name),
	})
	if err != nil {
		f.t.Fatal(err)
	}
	m.server = server
	m.stop = f.run(server.Run)
}

// restart makes a member that was stopped listen again where it did.
func (f *fleet) restart(name string) {
	f.t.Helper()
	m := f.members[name]
	listener, err := net.Listen("tcp", m.listener.Addr().String())
	if err != nil {
		f.t.Fatal(err)
	}
	m.listener = listener
	f.serve(m)
}

// run starts something that ends before the test does.
func (f *fleet) run(run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = run(ctx)
	}()
	stop = func() { cancel(); <-done }
	f.t.Cleanup(stop)
	return stop
}

func (f *fleet) log(who string) *slog.Logger {
	return slog.New(slog.NewTextHandler(testWriter{f.t}, nil)).With("who", who)
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(string(p))
	return len(p), nil
}

func (f *fleet) Leader() (string, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.leader, f.changed
}

func (f *fleet) crown(leader string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leader = leader
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fleet) admit(cluster string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.refused[cluster]
}

func (f *fleet) believe(certificate *x509.Certificate) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if name := certificate.Subject.CommonName; f.denied[name] {
		return fmt.Errorf("user %q is denied", name)
	}
	return nil
}

func (f *fleet) deny(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.denied[name] = true
}

func (f *fleet) refuse(cluster string, reason error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refused[cluster] = reason
}

func (f *fleet) Watch(ctx context.Context, cluster string) <-chan *agentv1.DesiredState {
	f.mu.Lock()
	source := f.desired[cluster]
	f.mu.Unlock()
	out := make(chan *agentv1.DesiredState)
	go func() {
		defer close(out)
		for {
			select {
			case <-ctx.Done():
				return
			case state := <-source:
				select {
				case out <- state:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return out
}

func (f *fleet) addresses() []string {
	return []string{f.address("a"), f.address("b"), f.address("c")}
}

func (f *fleet) address(name string) string { return f.members[name].listener.Addr().String() }

// Hear grants to everyone on the member that leads.
func (m *member) Hear(ctx context.Context, request *hubv1.RelayRequest) (*hubv1.RelayResponse, error) {
	if leader, _ := m.fleet.Leader(); leader != m.name {
		return nil, errors.New("not the leader")
	}
	m.mu.Lock()
	m.through[request.GetMember()] += len(request.GetHeartbeats())
	if len(request.GetHeartbeats()) == 0 {
		m.presences[request.GetMember()]++
	}
	hold := m.hold
	m.mu.Unlock()
	if hold != nil && len(request.GetHeartbeats()) > 0 {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	response := &hubv1.RelayResponse{}
	for _, h := range request.GetHeartbeats() {
		m.mu.Lock()
		if m.told == nil {
			m.told = map[string]*agentv1.Heartbeat{}
		}
		m.told[request.GetMember()] = h.GetHeartbeat()
		response.Observed = append(response.Observed, time.Since(m.heard) < 3*times().Tick)
		m.mu.Unlock()
		response.Grants = append(response.Grants, &agentv1.Grant{
			Seq: h.GetHeartbeat().GetSeq(), TtlMillis: times().TTL.Milliseconds(),
			Incarnation: m.incarnation.Load(), Term: 1, Revision: 1,
			Roles: []*agentv1.RoleGrant{
				{Dataset: &agentv1.DatasetKey{Namespace: "pay", Name: "cards"}, Role: agentv1.Role_ROLE_REPLICA},
				{Dataset: &agentv1.DatasetKey{Namespace: "pay", Name: "ledger"}, Role: agentv1.Role_ROLE_PRIMARY},
			},
		})
	}
	return response, nil
}

func (m *member) hears(_ string, heartbeat *agentv1.Heartbeat) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.own, m.heard = heartbeat, time.Now()
}

func (m *member) heardThrough(relay string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.through[relay]
}

func (m *member) Apply(cluster, replica string, delta *agentv1.ViewDelta) {
	m.note(fmt.Sprintf("%s/%s %s", cluster, replica, delta.GetResource().GetResource()))
}

func (m *member) Disconnected(cluster, replica string) {
	m.note(fmt.Sprintf("%s/%s gone", cluster, replica))
}

func (m *member) Facts(cluster string, facts *agentv1.ClusterFacts) {}

func (m *member) Applied(string, *agentv1.AppliedStatus) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.applied++
}

func (m *member) note(event string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.view = append(m.view, event)
}

func (m *member) saw(event string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.view {
		if e == event {
			return true
		}
	}
	return false
}

// replica is one agent replica with real sessions.
type replica struct {
	name     string
	sessions *agentsession.Sessions
	stop     func()
	active   atomic.Bool
	carry    func(context.Context, *agentv1.Directive) *agentv1.DirectiveResult

	mu      sync.Mutex
	grants  []*agentv1.Grant
	first   time.Time // deadline of the first grant
	desired int
	carried int
	cut     map[string]bool // addresses that cannot be dialled
	conns   map[string][]net.Conn
}

func (f *fleet) join(cluster, name string, change func(*agentsession.Config, *replica)) *replica {
	f.t.Helper()
	r := &replica{name: name, cut: map[string]bool{}, conns: map[string][]net.Conn{}}
	config := agentsession.Config{
		Members: f.addresses(), Replica: name, Version: "test", TLS: f.ca.agent(cluster), Receiver: r,
		Tick: times().Tick, RedialMin: 10 * time.Millisecond, RedialMax: 100 * time.Millisecond, Dial: r.dial, Logger: f.log(name),
		Heartbeat: func() *agentv1.Heartbeat { return &agentv1.Heartbeat{Active: r.active.Load(), Observable: true} },
	}
	if change != nil {
		change(&config, r)
	}
	sessions, err := agentsession.New(config)
	if err != nil {
		f.t.Fatal(err)
	}
	r.sessions = sessions
	r.stop = f.run(sessions.Run)
	return r
}

func (r *replica) dial(ctx context.Context, address string) (net.Conn, error) {
	r.mu.Lock()
	cut := r.cut[address]
	r.mu.Unlock()
	if cut {
		return nil, fmt.Errorf("cut off from %s", address)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err == nil {
		r.mu.Lock()
		r.conns[address] = append(r.conns[address], conn)
		r.mu.Unlock()
	}
	return conn, err
}

// cutOff ends the connections to address and allows no new one.
func (r *replica) cutOff(address string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut[address] = true
	for _, conn := range r.conns[address] {
		_ = conn.Close()
	}
}

func (r *replica) Grant(grant *agentv1.Grant, deadline time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.grants = append(r.grants, grant)
	if len(r.grants) == 1 {
		r.first = deadline
	}
}

func (r *replica) Desired(string, *agentv1.DesiredState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.desired++
}

func (r *replica) Carry(ctx context.Context, d *agentv1.Directive) *agentv1.DirectiveResult {
	r.mu.Lock()
	r.carried++
	r.mu.Unlock()
	if r.carry != nil {
		return r.carry(ctx, d)
	}
	return &agentv1.DirectiveResult{Outcome: agentv1.Outcome_OUTCOME_DONE}
}

func (r *replica) Stream(ctx context.Context, send func(*agentv1.AgentMessage) error) error {
	for i := 0; ; i++ {
		delta := &agentv1.ViewDelta{Resource: &agentv1.SyncedResource{Resource: "pods"}}
		if err := send(&agentv1.AgentMessage{Kind: &agentv1.AgentMessage_View{View: delta}}); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (r *replica) Connected(string) {}

func (r *replica) granted() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.grants)
}
