package memberagent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"tripod.dev/tripod/hub/api/jointoken"
	"tripod.dev/tripod/member-agent/applier"
	"tripod.dev/tripod/member-agent/drill"
	"tripod.dev/tripod/member-agent/effector"
	"tripod.dev/tripod/member-agent/pledging"
	"tripod.dev/tripod/member-agent/reporter"
	"tripod.dev/tripod/member-agent/session"
	"tripod.dev/tripod/member-agent/tunnel"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// Agent is one replica of a cluster's agent.
type Agent struct {
	config      Config
	local       kubernetes.Interface
	datasets    kubernetes.Interface // for what is asked for each dataset
	credentials *credentials
	enrolment   *enrolment
	memory      *memory
	lastGrant   *lastGrant
	probe       *probe

	mu       sync.Mutex
	sessions *session.Sessions // nil until the agent has joined, as tunnel and election are
	tunnel   *tunnel.Tunnel
	election *election
	hubs     []string // HOST:PORT in use
}

// New checks the configuration. Nothing is dialled before Run.
func New(config Config) (*Agent, error) {
	config = config.WithDefaults()
	if err := config.Validate(); err != nil {
		return nil, err
	}
	// The agent's own few calls wait neither behind each other nor behind those for a
	// thousand datasets: each client has a limit of its own.
	local := rest.CopyConfig(config.RESTConfig)
	local.QPS, local.Burst, local.Timeout = 50, 100, 10*time.Second
	client, err := kubernetes.NewForConfig(local)
	if err != nil {
		return nil, fmt.Errorf("agent: make the client of this cluster: %w", err)
	}
	datasets, err := kubernetes.NewForConfig(local)
	if err != nil {
		return nil, fmt.Errorf("agent: make the datasets' client of this cluster: %w", err)
	}
	a := &Agent{config: config, local: client, datasets: datasets, credentials: newCredentials(guardsSettle), memory: newMemory(client, config.Namespace, config.Logger),
		lastGrant: newLastGrant(client, config.Namespace, config.Logger)}
	a.probe = newProbe(client.CoreV1().RESTClient())
	a.enrolment = &enrolment{
		cluster: config.Cluster, namespace: config.Namespace, tokenFile: config.JoinTokenFile,
		local: client, credentials: a.credentials, now: time.Now, log: config.Logger,
		withToken: func(t jointoken.Token, ca func(*x509.Certificate)) (kubernetes.Interface, error) {
			return hubWithToken(config.HubAPI, t, ca)
		},
		withCertificate: sync.OnceValues(func() (kubernetes.Interface, error) {
			return hubWithCertificate(config.HubAPI, a.credentials)
		}),
	}
	return a, nil
}

// Run joins the hub if need be and works until ctx ends; it returns when
// everything that it started has ended.
func (a *Agent) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.health().run(ctx) })
	group.Go(func() error { return a.probe.run(ctx) })
	group.Go(func() error { return a.work(ctx) })
	err := group.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// work is what needs an identity.
func (a *Agent) work(ctx context.Context) error {
	if err := a.enrolment.join(ctx); err != nil {
		return err
	}
	incarnation, revision, last, err := a.recall(ctx)
	if err != nil {
		return err
	}
	parts, err := a.assemble(incarnation, revision)
	if err != nil {
		return err
	}
	if last != nil {
		parts.recall(last)
	}
	a.mu.Lock()
	a.sessions, a.tunnel, a.election = parts.sessions, parts.tunnel, parts.election
	a.mu.Unlock()
	// Sessions last: what they bring finds the parts at work.
	group, ctx := errgroup.WithContext(ctx)
	for _, run := range []func(context.Context) error{
		a.memory.run, a.lastGrant.run, parts.hall.pledges.Run,
		parts.hall.applier.Run, parts.hall.reporter.Run, parts.hall.effector.Run,
		parts.election.run,
		func(ctx context.Context) error { return a.enrolment.keep(ctx, parts.election.isActive) },
		parts.tunnel.Run, parts.sessions.Run,
	} {
		group.Go(func() error { return run(ctx) })
	}
	return group.Wait()
}

// recall waits for the API server: an agent without its memory would obey an
// older hub.
func (a *Agent) recall(ctx context.Context) (incarnation uint64, revision int64, last *agentv1.Grant, err error) {
	for {
		incarnation, revision, err = a.memory.load(ctx)
		if err == nil {
			last, err = a.lastGrant.load(ctx)
		}
		if err == nil || ctx.Err() != nil {
			return incarnation, revision, last, err
		}
		a.config.Logger.Warn("the agent cannot read its memory yet", "error", err)
		if err := sleep(ctx, time.Second); err != nil {
			return 0, 0, nil, err
		}
	}
}

type assembled struct {
	hall     *hall
	sessions *session.Sessions
	tunnel   *tunnel.Tunnel
	election *election
	// recall takes in the grant of an earlier life.
	recall func(*agentv1.Grant)
}

// assemble makes the parts and ties them together.
func (a *Agent) assemble(incarnation uint64, revision int64) (*assembled, error) {
	config, log := a.config, a.config.Logger
	hall := &hall{unobservable: a.probe.unobservable, progress: a.credentials.progress, remember: a.lastGrant.granted}
	election := &election{config: config, local: a.local, log: log, became: hall.became}
	election.renewed.Store(never)
	hall.active = election.isActive
	tunnels, err := tunnel.New(tunnel.Config{
		Members: config.Hub, Replica: config.Replica, TLS: a.credentials.clientTLS(), RESTConfig: config.RESTConfig, Logger: log,
	})
	if err != nil {
		return nil, err
	}
	sessions, err := session.New(session.Config{
		Members: config.Hub, Told: a.memory.told(), Addresses: func(hubs []string) { tunnels.Follow(hubs); a.setHubs(hubs) }, RememberMembers: a.memory.rememberMembers,
		Replica: config.Replica, Version: config.Version, TLS: a.credentials.clientTLS(),
		Incarnation: incarnation, Revision: revision, Remember: a.memory.remember,
		Heartbeat: hall.heartbeat, Receiver: hall, Logger: log,
		Authorities: func(said *agentv1.HubAuthorities) { a.credentials.heed(said) },
	})
	if err != nil {
		return nil, err
	}
	hall.out = sessions
	made := &assembled{hall: hall, sessions: sessions, tunnel: tunnels, election: election}
	if err := a.parts(made, incarnation, revision); err != nil {
		return nil, err
	}
	return made, nil
}

func (a *Agent) parts(made *assembled, incarnation uint64, revision int64) (err error) {
	hall := made.hall
	config, log := a.config, a.config.Logger
	applying, err := applier.New(applier.Config{
		RESTConfig: config.RESTConfig, Log: log, Send: func(status *agentv1.AppliedStatus) { hall.applied(status) },
		Seen: applier.Seen{Incarnation: incarnation, Revision: revision},
	})
	if err != nil {
		return err
	}
	hall.applier = applying
	// The applier's word: store revisions in grants run ahead of desired state.
	a.memory.seen = func() (uint64, int64) { seen := applying.Seen(); return seen.Incarnation, seen.Revision }
	hall.reporter, err = reporter.New(reporter.Config{RESTConfig: config.RESTConfig, Logger: log})
	if err != nil {
		return err
	}
	promises, err := pledging.New(pledging.Config{
		Cluster: config.Cluster, Replicas: config.Replicas, Identity: a.credentials,
		Record: pledging.ClusterRecord{Client: a.local, Namespace: config.Namespace}, Tenure: made.election.tenure, Log: log,
	})
	if err != nil {
		return err
	}
	acting, err := effector.New(effector.Config{
		Cluster: config.Cluster, Replica: config.Replica, Listen: config.GuardListen,
		Identity: a.credentials, Certificates: a.enrolment, Secrets: effector.NewClusterSecrets(a.datasets), Hubs: a.knownHubs,
		Drills:  drill.NewCenter(a.datasets),
		Sockets: config.Drivers,
		Pledges: promises, Serve: promises.Register,
		Active: hall.active, Hurry: made.sessions.Hurry, Log: log,
	})
	if err != nil {
		return err
	}
	hall.pledges, hall.effector, made.recall = promises, acting, acting.Recall
	return nil
}

func (a *Agent) setHubs(hubs []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.hubs = hubs
}

// knownHubs are the members' addresses in use, at first those it was installed with.
func (a *Agent) knownHubs() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.hubs) == 0 {
		return a.config.Hub
	}
	return a.hubs
}

func (a *Agent) health() *health {
	number := func(value func(*session.Sessions, *election) float64) func() float64 {
		return func() float64 {
			a.mu.Lock()
			defer a.mu.Unlock()
			if a.sessions == nil {
				return 0
			}
			return value(a.sessions, a.election)
		}
	}
	return newHealth(a.config.HealthListen, a.ready, a.lacking,
		number(func(s *session.Sessions, _ *election) float64 { return float64(s.Connected()) }),
		number(func(*session.Sessions, *election) float64 { return float64(a.tunnel.Connected()) }),
		number(func(_ *session.Sessions, e *election) float64 {
			if e.isActive() {
				return 1
			}
			return 0
		}),
		number(func(s *session.Sessions, _ *election) float64 {
			if deadline := s.Deadline(); !deadline.IsZero() {
				return time.Until(deadline).Seconds()
			}
			return 0
		}),
	)
}

// ready is nil while the agent has an identity and a session with some member.
func (a *Agent) ready() error {
	if a.credentials.present.Load() == nil {
		return errNoIdentity
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sessions == nil || a.sessions.Connected() == 0 {
		return fmt.Errorf("no session with any of the hub members %q", a.config.Hub)
	}
	return nil
}

// lacking says which hub members an agent that is ready has no session with or no
// tunnel to; empty when it has all. It works without them: what goes through others is
// not touched.
func (a *Agent) lacking() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sessions == nil {
		return ""
	}
	var parts []string
	for what, missing := range map[string][]string{"session with": a.sessions.Missing(), "tunnel to": a.tunnel.Missing()} {
		if len(missing) > 0 {
			parts = append(parts, fmt.Sprintf("no %s %s", what, strings.Join(missing, ", ")))
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, "; ")
}
