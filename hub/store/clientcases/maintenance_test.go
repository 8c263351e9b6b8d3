package clientcases_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/snapshot"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tripod.dev/tripod/hub/store/storetest"
)

func TestMaintenance(t *testing.T) {
	t.Parallel()
	c := storetest.Start(t, 3, steady)
	for name, run := range map[string]func(*testing.T, *session){
		"status":                       maintenanceStatus,
		"hash":                         maintenanceHash,
		"hash of the past":             maintenanceHashErrors,
		"a snapshot holds the state":   snapshotContent,
		"a snapshot that is cancelled": snapshotCancelled,
		"a snapshot that takes long":   snapshotTimeout,
		"defragmentation":              maintenanceDefragment,
		"alarms":                       maintenanceAlarms,
		"what is not for clients":      maintenanceUnimplemented,
	} {
		t.Run(name, func(t *testing.T) { everywhere(t, c, run) })
	}
	t.Run("members have the same hash", func(t *testing.T) { hashesAgree(t, c) })
	t.Run("a snapshot in a file", func(t *testing.T) { snapshotFile(t, c) })
	t.Run("the members", func(t *testing.T) { memberList(t, c) })
	t.Run("the leader is moved", func(t *testing.T) { moveLeader(t, c) })
}

func maintenanceStatus(t *testing.T, s *session) {
	put := s.put("status", "v")
	r, err := s.Status(s.ctx, s.Endpoints()[0])
	s.check("status", err)
	m := s.member.Store.Membership()
	want := map[string]any{"member": m.SelfID(), "cluster": put.Header.ClusterId, "revision": put.Header.Revision, "leader": m.LeaderID(), "learner": false, "version": "3.6.8", "storage": "3.6.0", "errors": 0}
	got := map[string]any{"member": r.Header.MemberId, "cluster": r.Header.ClusterId, "revision": r.Header.Revision, "leader": r.Leader, "learner": r.IsLearner, "version": r.Version, "storage": r.StorageVersion, "errors": len(r.Errors)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if r.RaftTerm == 0 || r.RaftTerm != put.Header.RaftTerm || r.RaftAppliedIndex == 0 || r.RaftIndex < r.RaftAppliedIndex || r.DbSize <= 0 || r.DbSizeInUse > r.DbSize {
		t.Errorf("status %+v", r)
	}
}

func maintenanceHash(t *testing.T, s *session) {
	r, err := pb.NewMaintenanceClient(s.ActiveConnection()).Hash(s.ctx, &pb.HashRequest{})
	s.check("hash", err)
	if r.Hash == 0 || r.Header.Revision == 0 || r.Header.MemberId == 0 {
		t.Errorf("answer %v", r)
	}
	s.put("hash", "u") // not a revision that was compacted, whose hash is another one
	one, err := s.HashKV(s.ctx, s.Endpoints()[0], 0)
	s.check("hash of the keys", err)
	s.put("hash", "v")
	two, err := s.HashKV(s.ctx, s.Endpoints()[0], 0)
	s.check("hash of the keys", err)
	old, err := s.HashKV(s.ctx, s.Endpoints()[0], one.HashRevision)
	s.check("hash of the keys before", err)
	if one.Hash == two.Hash || old.Hash != one.Hash || two.HashRevision <= one.HashRevision {
		t.Errorf("before %v, after %v, before asked after %v", one, two, old)
	}
}

func maintenanceHashErrors(t *testing.T, s *session) {
	// The hash of a compacted revision itself is kept.
	s.put("hash", "1")
	revision := s.put("hash", "2").Header.Revision
	_, err := s.Compact(s.ctx, revision, clientv3.WithCompactPhysical())
	s.check("compact", err)
	if _, err := s.HashKV(s.ctx, s.Endpoints()[0], revision-1); !errors.Is(err, rpctypes.ErrCompacted) {
		t.Errorf("of a compacted revision: %v", err)
	}
	if _, err := s.HashKV(s.ctx, s.Endpoints()[0], revision+100); !errors.Is(err, rpctypes.ErrFutureRev) {
		t.Errorf("of the future: %v", err)
	}
}

// hashesAgree writes, compacts and defragments one member in between: the hash of
// the keys at a revision is the same on all.
func hashesAgree(t *testing.T, c *storetest.Cluster) {
	s := join(t, c)
	var last int64
	for i := range 50 {
		last = s.put(fmt.Sprintf("agree%d", i%10), fmt.Sprint(i)).Header.Revision
		if i%7 == 0 {
			s.delete(fmt.Sprintf("agree%d", i%10))
		}
	}
	agree := func(what string, revision int64) {
		t.Helper()
		hashes := map[uint32][]string{}
		for _, m := range c.Members {
			one := join(t, c, m)
			one.get("any")
			r, err := one.HashKV(one.ctx, one.Endpoints()[0], revision)
			one.check("hash", err)
			if r.HashRevision != revision {
				t.Errorf("%s: %s hashed revision %d, want %d", what, m.Name, r.HashRevision, revision)
			}
			hashes[r.Hash] = append(hashes[r.Hash], m.Name)
		}
		if len(hashes) != 1 {
			t.Errorf("%s: members differ: %v", what, hashes)
		}
	}
	agree("before", last)
	_, err := s.Compact(s.ctx, last-10)
	s.check("compact", err)
	agree("compacted", last)
	_, err = s.Defragment(s.ctx, join(t, c, c.Members[1]).Endpoints()[0])
	s.check("defragment", err)
	agree("one defragmented", last)
	agree("the compacted revision", last-10)
}

func snapshotContent(t *testing.T, s *session) {
	s.delete("content")
	s.put("content", "1")
	s.put("content", strings.Repeat("v", 100_000))
	s.put("content", "3")
	values := s.database().values("content")
	if len(values) < 3 || values[len(values)-1] != "3" || len(values[len(values)-2]) != 100_000 {
		t.Errorf("%d values", len(values))
	}
	r, err := s.SnapshotWithVersion(s.ctx)
	s.check("snapshot", err)
	if _, err := io.Copy(io.Discard, r.Snapshot); err != nil || r.Version != "3.6.0" || r.Header.GetRevision() != 0 {
		t.Errorf("version %q, error %v", r.Version, err)
	}
	s.check("close", r.Snapshot.Close())
}

// bulk makes the file larger than what gRPC reads ahead.
func bulk(s *session) {
	for i := range 3 {
		s.put(fmt.Sprintf("bulk%d", i), strings.Repeat("v", 1<<20))
	}
}

func snapshotCancelled(t *testing.T, s *session) {
	bulk(s)
	ctx, cancel := context.WithCancel(s.ctx)
	r, err := s.Snapshot(ctx)
	s.check("snapshot", err)
	defer r.Close()
	if _, err := io.ReadFull(r, make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, context.Canceled) {
		t.Errorf("reading on: %v", err)
	}
	// The pinned state is let go, soon: the member is not told before the client is.
	for {
		_, err = s.Defragment(s.ctx, s.Endpoints()[0])
		if status.Code(err) != codes.FailedPrecondition {
			break
		}
	}
	s.check("defragment", err)
}

// snapshotTimeout: wherever a snapshot is when its time is over, its reader is told
// so and does not take what it has for the whole.
func snapshotTimeout(t *testing.T, s *session) {
	bulk(s)
	ctx, cancel := context.WithTimeout(s.ctx, 500*time.Millisecond)
	defer cancel()
	read := func() error {
		r, err := s.Snapshot(ctx)
		if err != nil {
			return err
		}
		defer r.Close()
		if _, err := io.ReadFull(r, make([]byte, 16)); err != nil {
			return err
		}
		<-ctx.Done()
		_, err = io.Copy(io.Discard, r)
		return err
	}
	if err := read(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a snapshot whose time is over: %v", err)
	}
}

func snapshotFile(t *testing.T, c *storetest.Cluster) {
	s := join(t, c)
	s.put("file", "v")
	path := filepath.Join(t.TempDir(), "snapshot.db")
	version, err := snapshot.SaveWithVersion(s.ctx, zap.NewNop(), clientConfig(t, c, c.Follower()), path)
	s.check("save", err)
	info, err := os.Stat(path)
	s.check("stat", err)
	if version != "3.6.0" || info.Mode().Perm() != 0o600 || info.Size() == 0 {
		t.Errorf("version %q, %v", version, info)
	}
}

// maintenanceDefragment: reads that are under way when the file is rewritten are
// answered, and the file shrinks.
func maintenanceDefragment(t *testing.T, s *session) {
	bulk(s)
	revision := s.delete("bulk", clientv3.WithPrefix()).Header.Revision
	_, err := s.Compact(s.ctx, revision, clientv3.WithCompactPhysical())
	s.check("compact", err)
	before, err := s.Status(s.ctx, s.Endpoints()[0])
	s.check("status", err)
	ctx, cancel := context.WithCancel(s.ctx)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, err := s.Get(ctx, "any", clientv3.WithSerializable()); err != nil && !errors.Is(err, context.Canceled) {
					t.Errorf("get: %v", err)
					return
				}
			}
		})
	}
	_, err = s.Defragment(s.ctx, s.Endpoints()[0])
	cancel()
	wg.Wait()
	s.check("defragment", err)
	after, err := s.Status(s.ctx, s.Endpoints()[0])
	s.check("status", err)
	if after.DbSize >= before.DbSize {
		t.Errorf("the file had %d bytes and has %d", before.DbSize, after.DbSize)
	}
}

func maintenanceAlarms(t *testing.T, s *session) {
	r, err := s.AlarmList(s.ctx)
	s.check("list", err)
	if len(r.Alarms) != 0 {
		t.Errorf("alarms %v", r.Alarms)
	}
	r, err = s.AlarmDisarm(s.ctx, &clientv3.AlarmMember{})
	s.check("disarm all", err)
	if len(r.Alarms) != 0 {
		t.Errorf("disarmed %v", r.Alarms)
	}
}

func maintenanceUnimplemented(t *testing.T, s *session) {
	for name, call := range map[string]func() error{
		"add a member":    func() error { _, err := s.MemberAdd(s.ctx, []string{"https://127.0.0.1:1"}); return err },
		"add a learner":   func() error { _, err := s.MemberAddAsLearner(s.ctx, []string{"https://127.0.0.1:1"}); return err },
		"remove a member": func() error { _, err := s.MemberRemove(s.ctx, 1); return err },
		"update a member": func() error { _, err := s.MemberUpdate(s.ctx, 1, []string{"https://127.0.0.1:1"}); return err },
		"promote":         func() error { _, err := s.MemberPromote(s.ctx, 1); return err },
		"downgrade":       func() error { _, err := s.Downgrade(s.ctx, clientv3.DowngradeEnable, "3.5"); return err },
		"enable auth":     func() error { _, err := s.AuthEnable(s.ctx); return err },
		"add a user":      func() error { _, err := s.UserAdd(s.ctx, "u", "p"); return err },
	} {
		err := call()
		// What etcd does not know clientv3 passes on as it came.
		if status.Code(err) != codes.Unimplemented && !strings.Contains(fmt.Sprint(err), "Unimplemented") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func memberList(t *testing.T, c *storetest.Cluster) {
	s := join(t, c)
	for name, opts := range map[string][]clientv3.OpOption{"linearizable": nil, "serializable": {clientv3.WithSerializable()}} {
		r, err := s.MemberList(s.ctx, opts...)
		s.check("list", err)
		got := map[string]string{}
		for _, m := range r.Members {
			got[m.Name] = strings.Join(m.ClientURLs, " ")
		}
		want := map[string]string{}
		for _, m := range c.Members {
			want[m.Name] = "https://" + m.Address.PeerAddress
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	s.check("sync", s.Sync(s.ctx))
	if len(s.Endpoints()) != len(c.Members) {
		t.Errorf("the client learned %v", s.Endpoints())
	}
	s.get("any")
}

func moveLeader(t *testing.T, c *storetest.Cluster) {
	follower := c.Follower()
	atLeader, atFollower := join(t, c, c.Leader()), join(t, c, follower)
	target := follower.Store.Membership().SelfID()
	if _, err := atFollower.MoveLeader(atFollower.ctx, target); !errors.Is(err, rpctypes.ErrNotLeader) {
		t.Errorf("asked of a follower: %v", err)
	}
	if _, err := atLeader.MoveLeader(atLeader.ctx, target+1); !errors.Is(err, rpctypes.ErrBadLeaderTransferee) {
		t.Errorf("to nobody: %v", err)
	}
	_, err := atLeader.MoveLeader(atLeader.ctx, target)
	atLeader.check("move", err)
	c.Eventually("the follower leads", follower.Store.IsLeader)
	atLeader.put("moved", "v")
	r, err := atFollower.Status(atFollower.ctx, atFollower.Endpoints()[0])
	atFollower.check("status", err)
	if r.Leader != target {
		t.Errorf("the new leader says that %x leads, want %x", r.Leader, target)
	}
}
