package effector_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"k8s.io/client-go/kubernetes/fake"

	"tripod.dev/tripod/failover/lease"
	"tripod.dev/tripod/member-agent/effector"
	"tripod.dev/tripod/member-agent/pledging"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
	"tripod.dev/tripod/test/authority"
	"tripod.dev/tripod/test/freeport"
)

// The proportions are those of lease.LAN: with a tick that is less beside the margin,
// a pledge that is asked for when it is due comes after the guard has killed.
const (
	tick   = 400 * time.Millisecond
	ttl    = 5 * tick
	margin = tick / 2
)

var guardBinary string

// TestMain builds the guard as it is shipped: static, and run as PID 1.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "tripod-guard-")
	if err == nil {
		guardBinary = filepath.Join(dir, "tripod-guard")
		build := exec.Command("go", "build", "-o", guardBinary, "tripod.dev/tripod/cmd/tripod-guard")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		var out []byte
		if out, err = build.CombinedOutput(); err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "build the guard:", err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// hub is a hub's CA, which signs what the effector asks for, as the hub's signer does.
type hub struct{ *authority.Authority }

func newHub(t *testing.T) hub { return hub{authority.New(t, "hub")} }

// identity is an agent's.
type identity struct {
	pair tls.Certificate
	pool *x509.CertPool
	pem  []byte
}

func (i identity) AuthorityPEM() []byte                            { return i.pem }
func (i identity) Outdated(*x509.Certificate) (outdated, due bool) { return false, false }
func (i identity) ServingCertificate() (*tls.Certificate, error)   { return &i.pair, nil }
func (i identity) Authority() *x509.CertPool                       { return i.pool }

func (h hub) agent(t *testing.T, cluster string) identity {
	t.Helper()
	return identity{h.Issue(t, "tripod:agent:"+cluster, "tripod:agents"), h.Pool(), h.PEM()}
}

func (h hub) GuardCertificate(_ context.Context, _, _ string, request []byte) (cert, ca []byte, err error) {
	block, _ := pem.Decode(request)
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, nil, err
	}
	der, err := h.Sign(&x509.Certificate{Subject: csr.Subject}, csr.PublicKey)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), h.PEM(), err
}

// secrets stand for the cluster's API server; the guard's one is mounted, and changes
// at once, as a kubelet changes it.
type secrets struct {
	mu   sync.Mutex
	data map[string]map[string][]byte
	dir  string
}

func (s *secrets) Secret(_ context.Context, namespace, name string) (map[string][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.data[namespace+"/"+name], nil
}

func (s *secrets) PutSecret(_ context.Context, namespace, name string, data map[string][]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.data[namespace+"/"+name] = data
	version, err := os.MkdirTemp(filepath.Dir(s.dir), "secret-")
	if err != nil {
		return err
	}
	for file, content := range data {
		if err := os.WriteFile(filepath.Join(version, file), content, 0o600); err != nil {
			return err
		}
	}
	if err := os.Symlink(version, version+".link"); err != nil {
		return err
	}
	return os.Rename(version+".link", s.dir)
}

var passwords = map[string]string{"database": "ledger", "client-user": "ledger", "client-password": "it's a secret",
	"monitor-password": "m:o'n", "replication-password": `r\e:p`}

// center is one cluster: an agent in this process and a guard as a process.
type center struct {
	name     string
	address  string
	dir      string
	effector *effector.Effector
	pledges  *pledging.Pledges
	// tenure is false where no replica of the agent is surely the active one.
	tenure atomic.Bool
	guard  *exec.Cmd
}

// besideName is a driver that a test may put beside the agent, at the path beside.
const besideName = "aside"

func (c *center) beside() string { return filepath.Join(c.dir, "s") }

// fleet plays the hub: it grants what the committed state says.
type fleet struct {
	t       *testing.T
	dir     string
	ca      hub
	centers map[string]*center

	mu       sync.Mutex
	primary  string
	epoch    int64
	fencing  bool
	syncSet  []string
	revision int64
	silent   map[string]bool
	// failsafe: the grants of the primary role offer pledges.
	failsafe bool
}

func newFleet(t *testing.T, names ...string) *fleet {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test runs a real PostgreSQL under a guard that is PID 1: run it as root")
	}
	dir, err := os.MkdirTemp("", "tripod-effector-")
	must(t, err)
	must(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { os.RemoveAll(dir) })
	f := &fleet{t: t, dir: dir, ca: newHub(t), centers: map[string]*center{}, silent: map[string]bool{}}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() { cancel(); running.Wait() })
	for _, name := range names {
		c := f.build(name)
		running.Go(func() { _ = c.pledges.Run(ctx) })
		running.Go(func() {
			if err := c.effector.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		t.Cleanup(func() { f.powerOff(name) })
	}
	running.Go(func() { f.grantEveryTick(ctx) })
	return f
}

func (f *fleet) build(name string) *center {
	f.t.Helper()
	c := &center{name: name, dir: filepath.Join(f.dir, name), address: freeport.Addresses(f.t, 1)[0]}
	for _, sub := range []string{"volume", "secrets"} {
		must(f.t, os.MkdirAll(filepath.Join(c.dir, sub), 0o755))
	}
	data := map[string][]byte{}
	for key, value := range passwords {
		data[key] = []byte(value)
		must(f.t, os.WriteFile(filepath.Join(c.dir, "secrets", key), []byte(value), 0o600))
	}
	var err error
	who := f.ca.agent(f.t, name)
	times := lease.LAN()
	times.Tick, times.TTL, times.GuardMargin = tick, ttl, margin
	c.tenure.Store(true)
	c.pledges, err = pledging.New(pledging.Config{Cluster: name, Identity: who, Tenure: c.tenure.Load, Lease: times,
		Record: pledging.ClusterRecord{Client: fake.NewClientset(), Namespace: "tripod-system"}})
	must(f.t, err)
	c.pledges.SetActive(true)
	c.effector, err = effector.New(effector.Config{
		Pledges: c.pledges, Serve: c.pledges.Register,
		Cluster: name, Replica: "agent-" + name, Listen: "127.0.0.1:0", Identity: who, Certificates: f.ca,
		Secrets: &secrets{data: map[string]map[string][]byte{"pay/ledger-db-credentials": data}, dir: filepath.Join(c.dir, "credentials")},
		Active:  func() bool { return true }, Tick: tick, Sockets: map[string]string{besideName: c.beside()},
	})
	must(f.t, err)
	f.centers[name] = c
	return c
}

// powerOn starts the guard as PID 1 of a namespace, as in a container.
func (f *fleet) powerOn(name string) {
	f.t.Helper()
	c := f.centers[name]
	wait(f.t, 10*time.Second, "the guard's Secret of "+name, func() bool {
		_, err := os.Stat(filepath.Join(c.dir, "credentials"))
		return err == nil
	})
	log, err := os.OpenFile(filepath.Join(c.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	must(f.t, err)
	defer log.Close()
	_, port, _ := net.SplitHostPort(c.address)
	c.guard = exec.Command("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", guardBinary, "run",
		"--agents", c.effector.Addr().String(), "--address", c.address, "--port", port, "--tick", tick.String(), "--margin", margin.String(),
		"--volume", filepath.Join(c.dir, "volume"), "--credentials", filepath.Join(c.dir, "credentials"), "--secrets", filepath.Join(c.dir, "secrets"))
	c.guard.Stdout, c.guard.Stderr = log, log
	must(f.t, c.guard.Start())
}

// powerOff kills everything of a center at once, and grants it nothing.
func (f *fleet) powerOff(name string) {
	f.silence(name, true)
	c := f.centers[name]
	if c.guard == nil {
		return
	}
	_ = c.guard.Process.Kill()
	_ = c.guard.Wait()
	c.guard = nil
	if f.t.Failed() {
		log, _ := os.ReadFile(filepath.Join(c.dir, "log"))
		f.t.Logf("log of %s:\n%s", name, log)
	}
}

// freeze stops or continues every process of a center.
func (f *fleet) freeze(name string, signal syscall.Signal) {
	f.t.Helper()
	frozen := 0
	for _, pid := range below(f.centers[name].guard.Process.Pid) {
		if syscall.Kill(pid, signal) == nil {
			frozen++
		}
	}
	if frozen < 3 {
		f.t.Fatalf("%v reached only %d processes of %s", signal, frozen, name)
	}
}

// below lists the descendants of a process.
func below(ancestor int) []int {
	var found []int
	paths, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", ancestor))
	for _, path := range paths {
		b, _ := os.ReadFile(path)
		for field := range strings.FieldsSeq(string(b)) {
			if pid, err := strconv.Atoi(field); err == nil {
				found = append(append(found, pid), below(pid)...)
			}
		}
	}
	return found
}

func (f *fleet) silence(name string, on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.silent[name] = on
}

// commit changes the committed state.
func (f *fleet) commit(change func()) {
	f.mu.Lock()
	change()
	f.revision++
	f.mu.Unlock()
	f.grantAll()
}

func (f *fleet) grantEveryTick(ctx context.Context) {
	every := time.NewTicker(tick)
	defer every.Stop()
	for {
		f.grantAll()
		select {
		case <-every.C:
		case <-ctx.Done():
			return
		}
	}
}

func (f *fleet) grantAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, c := range f.centers {
		if !f.silent[name] {
			c.effector.Grant(&agentv1.Grant{Incarnation: 1, Revision: f.revision, TtlMillis: ttl.Milliseconds(),
				Roles: []*agentv1.RoleGrant{f.roleLocked(name)}}, time.Now().Add(ttl))
		}
	}
}

func (f *fleet) roleLocked(name string) *agentv1.RoleGrant {
	r := &agentv1.RoleGrant{Dataset: dataset, Epoch: f.epoch, Role: agentv1.Role_ROLE_REPLICA, Driver: "postgresql",
		Primary: f.primary, SyncSet: f.syncSet, Protection: agentv1.Protection_PROTECTION_ZERO_LOSS}
	if c := f.centers[f.primary]; c != nil {
		r.PrimaryAddress = c.address
	}
	if name == f.primary && !f.fencing {
		r.Role = agentv1.Role_ROLE_PRIMARY
	}
	for other, c := range f.centers {
		if other != name {
			r.Peers = append(r.Peers, &agentv1.DatasetPeer{Cluster: other, Address: c.address, AgentAddress: c.effector.Addr().String()})
		}
	}
	if f.failsafe && r.Role == agentv1.Role_ROLE_PRIMARY {
		r.Failsafe = &agentv1.Failsafe{}
		for _, member := range f.syncSet {
			if member != name {
				r.Failsafe.Pledgers = append(r.Failsafe.Pledgers, member)
			}
		}
	}
	return r
}

var dataset = &agentv1.DatasetKey{Namespace: "pay", Name: "ledger-db"}

// direct has an agent carry out a verb at the committed state.
func (f *fleet) direct(name string, verb agentv1.Verb, timeout time.Duration, change func(*agentv1.Directive)) *agentv1.DirectiveResult {
	f.mu.Lock()
	d := &agentv1.Directive{Incarnation: 1, Epoch: f.epoch, Dataset: dataset, Verb: verb,
		Role: f.roleLocked(name), DeadlineMillis: timeout.Milliseconds()}
	f.mu.Unlock()
	if change != nil {
		change(d)
	}
	return f.centers[name].effector.Carry(context.Background(), d)
}

// must asks again while the answer is FAILED, as the hub does.
func (f *fleet) must(name string, verb agentv1.Verb, change func(*agentv1.Directive)) *agentv1.DirectiveResult {
	f.t.Helper()
	var r *agentv1.DirectiveResult
	limit := time.Now().Add(30 * time.Second)
	wait(f.t, 40*time.Second, verb.String()+" in "+name, func() bool {
		r = f.direct(name, verb, 30*time.Second, change)
		return r.GetOutcome() != agentv1.Outcome_OUTCOME_FAILED || time.Now().After(limit)
	})
	if r.GetOutcome() != agentv1.Outcome_OUTCOME_DONE {
		f.t.Fatalf("%v in %s: %v: %s", verb, name, r.GetOutcome(), r.GetMessage())
	}
	return r
}

func (f *fleet) observed(name string) *agentv1.DatasetObservation {
	if all, _ := f.centers[name].effector.Observations(); len(all) > 0 {
		return all[0]
	}
	return &agentv1.DatasetObservation{}
}

func (f *fleet) waitState(name, state string) {
	f.t.Helper()
	wait(f.t, 30*time.Second, name+" is "+state, func() bool { return f.observed(name).GetState() == state })
}

func (f *fleet) awaitGuard(name string) {
	f.t.Helper()
	wait(f.t, 10*time.Second, "guard of "+name, func() bool { return f.observed(name).GetGuardKnown() })
}

// comeBack returns a center that was without power and without grants, as far as its guard.
func (f *fleet) comeBack(name string) {
	f.t.Helper()
	f.silence(name, false)
	f.powerOn(name)
	f.awaitGuard(name)
}

// wait looks at a condition until it holds; it fails after the deadline.
func wait(t *testing.T, limit time.Duration, what string, met func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	every := time.NewTicker(10 * time.Millisecond)
	defer every.Stop()
	for !met() {
		select {
		case <-every.C:
		case <-ctx.Done():
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
