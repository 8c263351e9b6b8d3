package store

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	raftlogv1 "tripod.dev/tripod/proto/raftlog/v1"
)

// EtcdVersion is the version of etcd whose API and semantics the store has; it
// is what clients are told.
const EtcdVersion = "3.6.8"

// handOver bounds how long a leader that shuts down waits for another to take
// over.
const handOver = 2 * time.Second

// replyElections is how many election time-outs Raft waits for an answer before
// it dials a member anew: one that lost its power left its connections open.
const replyElections = 6

// Store is one member's part of the replicated store. All methods may be called
// concurrently, from New until Run has returned.
type Store struct {
	// State is what this member has applied.
	*State

	cfg       Config
	log       *slog.Logger
	machine   *machine
	raft      *raft.Raft
	disk      *disk
	transport *confirmingTransport
	space     *space
	peers     *peers
	leaders   *leaderWatch
	reader    *reader
	proposer  *proposer
	leases    *Leases
	auditor   *auditor
	book      *book
	intro     *introduction
	raiser    *raiser
	patience  *patience
	queue     queue
	// changing orders this member's changes of the membership.
	changing sync.Mutex
}

// New opens or creates the member's data and joins Raft. On success the caller
// must call Run, which owns closing.
func New(cfg Config) (*Store, error) {
	cfg = cfg.WithDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.Logger = cfg.Logger.With("member", cfg.Name)
	metrics := newMetrics()
	disk, err := openDisk(cfg)
	if err != nil {
		return nil, err
	}
	machine, err := openMachine(cfg, metrics)
	if err != nil {
		return nil, errors.Join(err, disk.close())
	}
	s := &Store{State: &State{machine}, cfg: cfg, log: cfg.Logger, machine: machine, disk: disk, space: disk.space}
	disk.log.fail = machine.halt
	if err := disk.reconcile(machine); err != nil {
		return nil, errors.Join(err, machine.close(), disk.close())
	}
	if err := join(s, metrics); err != nil {
		return nil, errors.Join(err, machine.close(), disk.close())
	}
	if err := metrics.register(cfg.Registerer, s); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// join wires the parts of s together and starts Raft.
func join(s *Store, metrics *metrics) error {
	cfg := s.cfg
	s.space.inUse = s.inUse
	s.book = &book{machine: s.machine, first: cfg.Members}
	s.intro = newIntroduction(s.machine.lineage, s.rememberBehind)
	s.intro.levels = s.machine.tells
	s.raiser = &raiser{store: s, log: s.log}
	behind, err := recallBehind(cfg.DataDir)
	if err != nil {
		return err
	}
	s.intro.behind.Store(behind)
	layer, err := newStreamLayer(cfg, s.book, s.intro)
	if err != nil {
		return err
	}
	s.transport = newConfirmingTransport(raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: layer, MaxPool: 3, Timeout: replyElections * cfg.Timing.Election, Logger: raftLogTo(s.log), MsgpackUseNewTimeFormat: true,
	}), s.disk.recent.early.await)
	changes := make(chan bool, 64)
	s.peers = newPeers(cfg, s.book)
	s.auditor = newAuditor(cfg, s.machine, s.peers)
	s.leaders = newLeaderWatch(cfg.Timing.Election, s.machine, changes, s.log)
	s.leaders.replaced, s.leaders.intro, s.leaders.self = s.peers.abandon, s.intro, cfg.Name
	s.leaders.queue = &s.queue
	s.reader = newReader()
	s.proposer = &proposer{
		self: cfg.Name, machine: s.machine, leaders: s.leaders, peers: s.peers, space: s.space,
		queue: &s.queue, timeout: cfg.RequestTimeout, limit: cfg.MaxRequestBytes + 4096, metrics: metrics, intro: s.intro,
	}
	s.leases = &Leases{
		self: cfg.Name, machine: s.machine, leaders: s.leaders, reader: s.reader, peers: s.peers,
		local: s.proposer.local, timeout: cfg.RequestTimeout, log: s.log,
	}
	s.machine.lessor.SetCheckpointer(func(ctx context.Context, cp *pb.LeaseCheckpointRequest) error {
		_, err := s.proposer.propose(ctx, leaseCheckpoint(cp))
		return err
	})
	ballots := newBallots(s.transport, cfg.Timing.Heartbeat)
	s.raft, err = s.disk.start(cfg, s.machine, ballots, changes)
	if err != nil {
		return errors.Join(err, ballots.Close())
	}
	ballots.raft.Store(s.raft)
	s.leaders.raft, s.leaders.propose, s.leaders.ended = s.raft, s.proposer.propose, s.transport.endWaits
	s.proposer.raft = s.raft
	s.patience = &patience{self: raft.ServerID(cfg.Name), heartbeat: cfg.Timing.Heartbeat, raft: s.raft, log: s.log}
	s.auditor.voters = func() []raft.Server {
		// Raft gives everybody the same slice.
		servers := slices.Clone(s.raft.GetConfiguration().Configuration().Servers)
		return slices.DeleteFunc(servers, func(m raft.Server) bool { return m.Suffrage != raft.Voter })
	}
	r := s.reader
	r.self, r.raft, r.logs, r.machine, r.leaders = raft.ServerID(cfg.Name), s.raft, s.disk.recent, s.machine, s.leaders
	r.queue, r.peers, r.transport, r.timeout, r.metrics = &s.queue, s.peers, s.transport, cfg.RequestTimeout, metrics
	return nil
}

// Run serves until ctx is done or the member cannot go on, and returns when
// everything is closed. A leader first hands over to another member.
func (s *Store) Run(ctx context.Context) error {
	background, stop := context.WithCancel(context.Background())
	defer stop()
	var wg sync.WaitGroup
	for _, run := range []func(context.Context){s.leaders.run, s.reader.run, s.leases.run, s.space.run, s.keepQuota, newCompactor(s, s.cfg).run, s.yield, s.auditor.run, s.retire, s.raiser.run, s.patience.run, (&pages{s.machine, s.log}).run} {
		wg.Go(func() { run(background) })
	}
	var failure error
	select {
	case <-ctx.Done():
	case failure = <-s.machine.haltErr:
		s.log.Error("the store stops", "error", failure)
	}
	s.handOver()
	// Raft first: what waits for it returns then.
	err := s.shutdownRaft()
	stop()
	wg.Wait()
	return errors.Join(failure, err, s.closeFiles())
}

// close undoes New.
func (s *Store) close() error {
	return errors.Join(s.shutdownRaft(), s.closeFiles())
}

// shutdownRaft stops Raft while no replication is left waiting in the transport.
func (s *Store) shutdownRaft() error {
	s.queue.close(handOver)
	s.transport.shut()
	return s.raft.Shutdown().Error()
}

func (s *Store) closeFiles() error {
	s.peers.close()
	return errors.Join(s.transport.Close(), s.machine.close(), s.disk.close())
}

func (s *Store) handOver() {
	if s.raft.State() != raft.Leader || len(s.raft.GetConfiguration().Configuration().Servers) < 2 {
		return
	}
	done := make(chan error, 1)
	go func() { done <- s.raft.LeadershipTransfer().Error() }()
	select {
	case err := <-done:
		if err != nil {
			s.log.Info("leadership not handed over", "error", err)
		}
	case <-time.After(handOver):
	}
}

// yield gives leadership away while this member is short of disk space: the
// others may have some.
func (s *Store) yield(ctx context.Context) {
	tick := time.NewTicker(yieldInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if s.space.low.Load() && s.IsLeader() {
				s.handOver()
			}
		}
	}
}

const yieldInterval = 15 * time.Second

// Propose commits a command through the leader and returns its result once it
// is applied on this member. The error is the command's own refusal, or one of
// this package's. After ErrOutcomeUnknown, ErrTimeout or a context error the
// command may still be committed.
func (s *Store) Propose(ctx context.Context, op Op) (*Result, error) {
	return s.proposer.propose(ctx, op)
}

// ProposeRenewal commits a lease renewal; it works on the leader only
// (ErrNotLeader), and returns when it is applied here.
func (s *Store) ProposeRenewal(ctx context.Context, r *raftlogv1.LeaseRenewal) (RenewalApplied, error) {
	return s.proposer.renewal(ctx, r)
}

// Linearize returns when local reads include every write that any member
// acknowledged before the call.
func (s *Store) Linearize(ctx context.Context) error { return s.reader.linearize(ctx) }

// AwaitAudit returns when the data that this member started with have been
// compared with those of the others, or that took too long because they cannot be
// reached. Until then nothing should be served from them.
func (s *Store) AwaitAudit(ctx context.Context) error { return s.auditor.await(ctx) }

// VerifyLeader proves by a majority that this member still leads (ErrNotLeader).
func (s *Store) VerifyLeader(ctx context.Context) error { return s.reader.verify(ctx) }

// Barrier returns when this leader has applied everything committed before the
// call (ErrNotLeader on other members).
func (s *Store) Barrier(ctx context.Context) error {
	if !s.IsLeader() {
		return ErrNotLeader
	}
	return s.reader.linearize(ctx)
}

// Subscribe returns a channel that always holds the newest leadership not yet
// read, beginning with the present one; it is closed when ctx is done.
func (s *Store) Subscribe(ctx context.Context) <-chan Leadership { return s.leaders.subscribe(ctx) }

// Leadership returns what this member knows now.
func (s *Store) Leadership() Leadership {
	l, _ := s.leaders.get()
	return l
}

// IsLeader says whether this member leads and has passed its barrier.
func (s *Store) IsLeader() bool { return s.leaders.leading() }

// Leases is the etcd leases.
func (s *Store) Leases() *Leases { return s.leases }

// Membership is the members and who leads them.
func (s *Store) Membership() *Membership { return &Membership{store: s} }

// Maintenance looks after the local database.
func (s *Store) Maintenance() *Maintenance { return &Maintenance{store: s} }

// RegisterMemberService puts the calls among members on a gRPC server, which
// must admit only members' certificates to them.
func (s *Store) RegisterMemberService(r grpc.ServiceRegistrar) {
	raftlogv1.RegisterMemberServiceServer(r, memberService{proposer: s.proposer, reader: s.reader, leases: s.leases, standing: s.standing})
}
