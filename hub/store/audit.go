package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
)

const (
	// auditPatience bounds one comparison, and how long a member that has just
	// started keeps clients waiting for its first.
	auditPatience = 3 * time.Second
	// auditPause spaces comparisons within that time: each reads the whole state.
	auditPause = 100 * time.Millisecond
	// auditRetry is the pause after one that decided nothing; it grows.
	auditRetry = time.Second
)

// auditor compares the key-value state of this member with that of the others, at
// the start and then now and then. bbolt has no checksums: a bit that is flipped
// inside a value looks like another value. A member that differs from a majority
// that agrees stops, and does not start again on the same data.
type auditor struct {
	self    string
	dir     string
	machine *machine
	peers   *peers
	// voters are those of the present configuration, self included.
	voters   func() []raft.Server
	interval time.Duration
	log      *slog.Logger

	// first is closed when the first comparison is over, or was not to be had.
	first chan struct{}
	alarm atomic.Pointer[string]
}

func newAuditor(cfg Config, m *machine, p *peers) *auditor {
	return &auditor{self: cfg.Name, dir: cfg.DataDir, machine: m, peers: p, interval: cfg.AuditInterval, log: cfg.Logger, first: make(chan struct{})}
}

// await returns when the data that this member started with has been compared, or
// ctx is done. It fails with ErrHalted in a member that was stopped for its data: who
// waited would read them before it has ended.
func (a *auditor) await(ctx context.Context) error {
	select {
	case <-a.first:
		if a.machine.halted.Load() {
			return ErrHalted
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (a *auditor) run(ctx context.Context) {
	a.begin(ctx)
	close(a.first)
	for pause := auditRetry; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, a.interval)
		if a.audit(ctx) {
			pause = a.interval
		}
	}
}

// begin compares what was there at the start.
func (a *auditor) begin(ctx context.Context) {
	if a.machine.kv.Rev() <= 1 {
		return // a new member has nothing that could have been altered
	}
	ctx, cancel := context.WithTimeout(ctx, auditPatience)
	defer cancel()
	for !a.audit(ctx) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(auditPause):
		}
	}
}

// audit is true when it was decided whether this member holds what a majority does.
func (a *auditor) audit(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, auditPatience)
	defer cancel()
	hash, _, err := a.machine.kv.HashStorage().HashByRev(a.machine.kv.Rev())
	if err != nil {
		return false // compacted meanwhile
	}
	own := held{KeyValueHash: hash}
	voters := a.voters()
	members := map[held][]string{own: {a.self}}
	for answer := range a.ask(ctx, voters, hash) {
		members[answer.held] = append(members[answer.held], answer.member)
		if len(members[answer.held]) > len(voters)/2 {
			cancel() // the others need not be waited for
		}
	}
	for theirs, names := range members {
		if len(names) <= len(voters)/2 {
			continue
		}
		if theirs != own {
			a.stop(own, theirs, names)
		}
		a.alarm.Store(nil)
		return true
	}
	if len(members) > 1 {
		text := fmt.Sprintf("members differ in revision %d and no majority agrees: %v: compare them with a backup", own.Revision, members)
		if a.alarm.Swap(&text) == nil {
			a.log.Error("the members' data differ", "error", text)
		}
	}
	return false
}

// held is what a member holds, to be compared.
type held struct {
	mvcc.KeyValueHash
	// levelsDiffer: other entries have raised the level of the command set there
	// than here. Raising it makes no revision, so the hash does not have it.
	levelsDiffer bool
}

type memberHash struct {
	held
	member string
}

// ask gives the hashes of the other voters that are comparable to own. The channel
// is closed when all have answered or ctx is done.
func (a *auditor) ask(ctx context.Context, voters []raft.Server, own mvcc.KeyValueHash) <-chan memberHash {
	answers := make(chan memberHash, len(voters))
	var asking sync.WaitGroup
	for _, voter := range voters {
		name := string(voter.ID)
		if name == a.self {
			continue
		}
		asking.Go(func() {
			hash, ok := a.hashOf(ctx, name, own.Revision)
			if !ok || hash.CompactRevision != own.CompactRevision {
				return
			}
			applied, raised := a.machine.applied.Load(), a.machine.raised().raisedAt()
			if theirs, err := a.peers.standing(ctx, name); err == nil {
				answers <- memberHash{held{hash, differ(applied, raised, theirs.GetAppliedIndex(), theirs.GetRaisedAt())}, name}
			}
		})
	}
	go func() {
		asking.Wait()
		close(answers)
	}()
	return answers
}

// hashOf asks a member, again while it has not applied revision.
func (a *auditor) hashOf(ctx context.Context, name string, revision int64) (mvcc.KeyValueHash, bool) {
	for {
		conn, err := a.peers.ready(ctx, name)
		if err != nil {
			return mvcc.KeyValueHash{}, false
		}
		r, err := pb.NewMaintenanceClient(conn).HashKV(ctx, &pb.HashKVRequest{Revision: revision})
		if err == nil {
			return mvcc.KeyValueHash{Hash: r.Hash, CompactRevision: r.CompactRevision, Revision: r.HashRevision}, true
		}
		if !errors.Is(rpctypes.Error(err), rpctypes.ErrFutureRev) {
			return mvcc.KeyValueHash{}, false
		}
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return mvcc.KeyValueHash{}, false
		}
	}
}

// stop ends this member for good.
func (a *auditor) stop(own, theirs held, members []string) {
	slices.Sort(members)
	levels := ""
	if theirs.levelsDiffer {
		levels = fmt.Sprintf(", and the level of the command set (%d here) was not raised by the same entries", a.machine.level())
	}
	err := fmt.Errorf("store: the data of member %q under %s are not those of %s: hash %08x of revision %d, want %08x%s: something has altered them: %s",
		a.self, a.dir, strings.Join(members, " and "), own.Hash, own.Revision, theirs.Hash, levels, startAfresh)
	if e := os.WriteFile(alteredFile(a.dir), []byte(err.Error()+"\n"), 0o600); e != nil {
		a.log.Error("cannot note that the data are not to be used", "error", e)
	}
	a.machine.halt(err)
}

func alteredFile(dir string) string { return filepath.Join(dir, "altered") }

// refuseAltered returns the verdict of an earlier audit.
func refuseAltered(dir string) error {
	verdict, err := os.ReadFile(alteredFile(dir))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("store: read the verdict of an earlier audit: %w", err)
	}
	return fmt.Errorf("store: refusing to start: %s", strings.TrimSpace(strings.TrimPrefix(string(verdict), "store: ")))
}
