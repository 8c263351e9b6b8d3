package store

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	raftlogv1 "tripod.dev/tripod/proto/raftlog/v1"
)

// machineOf opens a machine of a program that understands a level.
func machineOf(t *testing.T, dir string, understands uint32) (*machine, error) {
	t.Helper()
	c := Config{Name: "m1", DataDir: dir, Logger: slog.New(slog.DiscardHandler), Understands: understands}
	return openMachine(c.WithDefaults(), newMetrics())
}

func mustClose(t *testing.T, m *machine) {
	t.Helper()
	if err := m.close(); err != nil {
		t.Fatal(err)
	}
}

func at(t *testing.T, index uint64, level uint32, incarnation uint64, op Op) *raft.Log {
	t.Helper()
	data, err := op.at(level, incarnation)
	if err != nil {
		t.Fatal(err)
	}
	return &raft.Log{Index: index, Term: 3, Data: data}
}

func raiseTo(level uint32) Op {
	return raiseLevel(&raftlogv1.RaiseLevel{Level: level, Members: []*raftlogv1.Announcement{{Member: "m0", Level: level, Version: fmt.Sprintf("v0.%d", level)}}})
}

// goldenLog is a log in which every command of a level occurs, and those of the
// levels before.
func goldenLog(t *testing.T, level uint32) (entries []*raft.Log) {
	index, incarnation := uint64(0), uint64(0)
	for now := uint32(1); now <= level; now++ {
		add := func(op Op) {
			index++
			entries = append(entries, at(t, index, now, incarnation, op))
		}
		if now == 1 {
			add(startIncarnation(&raftlogv1.StartIncarnation{Incarnation: 1, ClusterId: 99, Reason: "bootstrap"}))
			incarnation = 1
		} else {
			add(raiseTo(now))
		}
		key := func(name string) []byte { return fmt.Appendf(nil, "%s%d", name, now) }
		add(LeaseGrant(&pb.LeaseGrantRequest{ID: int64(now), TTL: 60}))
		add(Put(&pb.PutRequest{Key: key("a"), Value: []byte("1"), Lease: int64(now)}))
		add(Put(&pb.PutRequest{Key: key("b"), Value: []byte("2")}))
		add(Txn(&pb.TxnRequest{
			Compare: []*pb.Compare{{Key: key("b"), Target: pb.Compare_VERSION, TargetUnion: &pb.Compare_Version{Version: 1}}},
			Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key("c"), Value: []byte("3")}}}},
		}))
		add(Delete(&pb.DeleteRangeRequest{Key: key("b")}))
		add(leaseCheckpoint(&pb.LeaseCheckpointRequest{Checkpoints: []*pb.LeaseCheckpoint{{ID: int64(now), Remaining_TTL: 30}}}))
		add(leaseRenewal(&raftlogv1.LeaseRenewal{Clusters: []string{"north"}, Tick: 7, Incarnation: 1}))
		if now > 1 {
			add(LeaseRevoke(&pb.LeaseRevokeRequest{ID: int64(now) - 1}))
			add(Compact(&pb.CompactionRequest{Revision: 4}))
			for _, action := range []pb.AlarmRequest_AlarmAction{pb.AlarmRequest_ACTIVATE, pb.AlarmRequest_DEACTIVATE} {
				add(alarmed(&pb.AlarmRequest{Action: action, MemberID: 7, Alarm: pb.AlarmType_NOSPACE}))
			}
		}
	}
	return entries
}

// TestGoldenLogsOfEveryLevelAreReplayed holds this build to the logs that earlier
// ones wrote: the same bytes give the same state.
func TestGoldenLogsOfEveryLevelAreReplayed(t *testing.T) {
	for level := uint32(1); level <= CommandVersion; level++ {
		t.Run(fmt.Sprintf("level %d", level), func(t *testing.T) {
			path := filepath.Join("testdata", "logs", fmt.Sprintf("level-%d.txt", level))
			text, err := os.ReadFile(path)
			if os.IsNotExist(err) && *update {
				text = writeGoldenLog(t, path, level)
			} else if err != nil {
				t.Fatalf("a new level needs a golden log (go test -update): %v", err)
			}
			lines := strings.Split(strings.TrimSpace(string(text)), "\n")
			want := lines[len(lines)-1]
			var entries []*raft.Log
			for i, line := range lines[:len(lines)-1] {
				data, err := hex.DecodeString(line)
				if err != nil {
					t.Fatal(err)
				}
				entries = append(entries, &raft.Log{Index: uint64(i + 1), Term: 3, Data: data})
			}
			dir := t.TempDir()
			m, err := machineOf(t, dir, CommandVersion)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // and once more after a restart
				m.ApplyBatch(entries)
				if got := summary(t, m); got != want {
					t.Fatalf("replayed: %s\nwant:     %s", got, want)
				}
				mustClose(t, m)
				if m, err = machineOf(t, dir, CommandVersion); err != nil {
					t.Fatal(err)
				}
			}
			mustClose(t, m)
			if level > 1 {
				stopsBefore(t, entries, level)
			}
		})
	}
}

func writeGoldenLog(t *testing.T, path string, level uint32) []byte {
	var text bytes.Buffer
	m, err := machineOf(t, t.TempDir(), level)
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, m)
	for _, e := range goldenLog(t, level) {
		fmt.Fprintf(&text, "%x\n", e.Data)
		m.Apply(e)
	}
	fmt.Fprintln(&text, summary(t, m))
	if err := os.WriteFile(path, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return text.Bytes()
}

func summary(t *testing.T, m *machine) string {
	t.Helper()
	hash, _, err := m.kv.HashStorage().HashByRev(m.kv.Rev())
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("revision %d, hash %08x, compacted %d, leases %d, incarnation %d, cluster %d, level %d, raised at %v",
		hash.Revision, hash.Hash, hash.CompactRevision, len(m.lessor.Leases()), m.incarnation.Load(), m.clusterID.Load(), m.level(), m.raised().raisedAt())
}

// stopsBefore: a program of the level before applies everything of its level, and
// stops at the raise without a trace of what follows.
func stopsBefore(t *testing.T, entries []*raft.Log, level uint32) {
	t.Helper()
	m, err := machineOf(t, t.TempDir(), level-1)
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, m)
	first := slices.IndexFunc(entries, func(e *raft.Log) bool { return versionOf(e.Data) >= level })
	m.ApplyBatch(entries)
	stopped := <-m.haltErr
	for _, text := range []string{`member "m1"`, fmt.Sprintf("up to level %d", level-1), fmt.Sprintf("of level %d", level), fmt.Sprintf("entry %d", first+1),
		fmt.Sprintf("the members ran v0.%d then", level), "install the tripod-hub"} {
		if !strings.Contains(stopped.Error(), text) {
			t.Errorf("it stops with %q, want %q in it", stopped, text)
		}
	}
	if m.applied.Load() != 0 && m.index.ConsistentIndex() != uint64(first) || m.index.ConsistentIndex() != uint64(first) || m.level() != level-1 {
		t.Errorf("applied up to %d at level %d, want %d at %d", m.index.ConsistentIndex(), m.level(), first, level-1)
	}
}

func TestADowngradeIsRefusedAtTheStart(t *testing.T) {
	dir := t.TempDir()
	m, err := machineOf(t, dir, 2)
	if err != nil {
		t.Fatal(err)
	}
	m.ApplyBatch([]*raft.Log{entry(t, 1, put("a")), at(t, 2, 2, 0, raiseTo(2))})
	before := summary(t, m)
	mustClose(t, m)
	_, err = machineOf(t, dir, 1)
	if !errors.Is(err, ErrTooOld) {
		t.Fatalf("an older program opens the data: %v", err)
	}
	for _, text := range []string{"refusing to start", `member "m1" understands the command set up to level 1`, "of level 2", "the members ran v0.2 then", dir, "install the tripod-hub"} {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("refused with %q, want %q in it", err, text)
		}
	}
	if m, err = machineOf(t, dir, 2); err != nil {
		t.Fatal(err)
	}
	if got := summary(t, m); got != before {
		t.Errorf("after the refusal: %s, want %s", got, before)
	}
	mustClose(t, m)
}

// sink keeps a snapshot in memory.
type sink struct{ bytes.Buffer }

func (s *sink) ID() string    { return "s" }
func (s *sink) Cancel() error { return nil }
func (s *sink) Close() error  { return nil }

func snapshotOf(t *testing.T, m *machine) []byte {
	t.Helper()
	snap, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Release()
	out := &sink{}
	if err := snap.Persist(out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestTheLevelComesWithTheSnapshot(t *testing.T) {
	leader, err := machineOf(t, t.TempDir(), 2)
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, leader)
	leader.ApplyBatch([]*raft.Log{entry(t, 1, put("a")), at(t, 2, 2, 0, raiseTo(2)), entry(t, 3, put("b"))})
	snapshot := snapshotOf(t, leader)

	fresh, err := machineOf(t, t.TempDir(), 2)
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, fresh)
	if err := fresh.Restore(io.NopCloser(bytes.NewReader(snapshot))); err != nil {
		t.Fatal(err)
	}
	if got, want := summary(t, fresh), summary(t, leader); got != want {
		t.Errorf("restored: %s, want %s", got, want)
	}

	dir := t.TempDir()
	old, err := machineOf(t, dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	old.Apply(entry(t, 1, put("a")))
	if err := old.Restore(io.NopCloser(bytes.NewReader(snapshot))); !errors.Is(err, ErrTooOld) {
		t.Errorf("an older program takes the snapshot: %v", err)
	}
	if err := <-old.haltErr; !strings.Contains(err.Error(), "the snapshot that it was sent is of level 2") {
		t.Errorf("it stops with %v", err)
	}
	if old.kv.Rev() != 2 || old.level() != 1 {
		t.Errorf("revision %d, level %d after the refusal, want 2, 1", old.kv.Rev(), old.level())
	}
	mustClose(t, old)
	if left, err := filepath.Glob(filepath.Join(dir, "db.restore-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestCommandsOfAnotherIncarnationAreRefused(t *testing.T) {
	m, err := machineOf(t, t.TempDir(), 2)
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, m)
	results := m.ApplyBatch([]*raft.Log{
		entry(t, 1, StartIncarnation(3, "x")), at(t, 2, 2, 0, raiseTo(2)),
		at(t, 3, 2, 3, put("mine")), at(t, 4, 2, 2, put("theirs")), at(t, 5, 1, 0, put("of no incarnation")),
	})
	for i, want := range []error{nil, nil, nil, ErrLeftBehind, nil} {
		if got := results[i].(*Result).Err; !errors.Is(got, want) {
			t.Errorf("entry %d: %v, want %v", i+1, got, want)
		}
	}
	if m.kv.Rev() != 3 || m.index.ConsistentIndex() != 5 {
		t.Errorf("revision %d, index %d, want 3, 5", m.kv.Rev(), m.index.ConsistentIndex())
	}
}

// TestLevelsRiseStepByStepForGood plays random logs, with commands above the level
// and raises that skip or repeat one, on members that restart, take snapshots and
// understand less.
func TestLevelsRiseStepByStepForGood(t *testing.T) {
	const top = 5 // levels that no build has yet
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			log := []*raft.Log{entry(t, 1, StartIncarnation(1, "x"))}
			model := uint32(firstLevel)
			var effects []bool // of the entry at that index
			effects = append(effects, true)
			for index := uint64(2); index < 80; index++ {
				if r.IntN(6) == 0 {
					level := 1 + r.Uint32N(top)
					log = append(log, at(t, index, level, 0, raiseTo(level)))
					effects = append(effects, level == model+1)
					if level == model+1 {
						model = level
					}
					continue
				}
				level := 1 + r.Uint32N(top)
				data, err := encode(&raftlogv1.Command{Version: level, Op: put(fmt.Sprint(index)).command.GetOp()})
				if err != nil {
					t.Fatal(err)
				}
				log = append(log, &raft.Log{Index: index, Term: 3, Data: data})
				effects = append(effects, level <= model)
			}
			want := follow(t, r, log, effects, top)
			for range 2 {
				if got := follow(t, r, log, effects, top); got != want {
					t.Errorf("two members differ: %s and %s", got, want)
				}
			}
			follow(t, r, log, effects, 1+r.Uint32N(top-1))
		})
	}
}

// follow applies a log in random batches with restarts and snapshots between them,
// and holds each step to the model. It returns the state at the end.
func follow(t *testing.T, r *rand.Rand, log []*raft.Log, effects []bool, understands uint32) string {
	t.Helper()
	dir := t.TempDir()
	m, err := machineOf(t, dir, understands)
	if err != nil {
		t.Fatal(err)
	}
	stop := slices.IndexFunc(log, func(e *raft.Log) bool { return versionOf(e.Data) > understands })
	level := m.level()
	for at := 0; at < len(log); {
		n := 1 + r.IntN(min(10, len(log)-at))
		for i, result := range m.ApplyBatch(log[at : at+n]) {
			err := result.(*Result).Err
			switch {
			case stop >= 0 && at+i >= stop:
				if !errors.Is(err, ErrHalted) {
					t.Fatalf("entry %d is above level %d: %v", at+i+1, understands, err)
				}
			case (err == nil) != effects[at+i]:
				t.Fatalf("entry %d, version %d, at level %d: %v", at+i+1, versionOf(log[at+i].Data), m.level(), err)
			}
		}
		if m.level() < level || m.level() > understands {
			t.Fatalf("the level went from %d to %d", level, m.level())
		}
		level = m.level()
		if stop >= 0 && at+n > stop {
			if got := m.index.ConsistentIndex(); got != uint64(stop) {
				t.Fatalf("applied up to %d, want %d", got, stop)
			}
			break
		}
		at += n
		switch r.IntN(4) {
		case 0:
			mustClose(t, m)
			if m, err = machineOf(t, dir, understands); err != nil {
				t.Fatal(err)
			}
		case 1:
			snapshot := snapshotOf(t, m)
			mustClose(t, m)
			if dir = t.TempDir(); true {
				m, err = machineOf(t, dir, understands)
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Restore(io.NopCloser(bytes.NewReader(snapshot))); err != nil {
				t.Fatal(err)
			}
		}
		if m.level() != level {
			t.Fatalf("level %d after a restart, want %d", m.level(), level)
		}
	}
	end := summary(t, m)
	mustClose(t, m)
	return end
}

func TestTheLevelWaitsForEveryMember(t *testing.T) {
	all := []MemberInfo{{Member: Member{Name: "a"}, Voter: true}, {Member: Member{Name: "b"}, Voter: true}, {Member: Member{Name: "c"}}}
	says := func(level uint32, incarnation uint64) announcement {
		return &raftlogv1.StandingResponse{CommandVersion: level, Incarnation: incarnation, Version: fmt.Sprintf("v%d", level)}
	}
	tests := map[string]struct {
		members   []MemberInfo
		announced map[string]announcement
		want      string
	}{
		"all understand it":                {all, map[string]announcement{"a": says(2, 4), "b": says(3, 4), "c": says(2, 4)}, ""},
		"one that has no data yet":         {all, map[string]announcement{"a": says(2, 4), "b": says(3, 4), "c": says(2, 0)}, ""},
		"a voter does not":                 {all, map[string]announcement{"a": says(2, 4), "b": says(1, 4), "c": says(2, 4)}, "b runs v1, which understands level 1"},
		"a member without a vote does not": {all, map[string]announcement{"a": says(2, 4), "b": says(2, 4), "c": says(1, 4)}, "c runs v1"},
		"one does not answer":              {all, map[string]announcement{"a": says(2, 4), "b": says(2, 4)}, "c does not answer"},
		"one is of another incarnation":    {all, map[string]announcement{"a": says(2, 4), "b": says(2, 3), "c": says(2, 4)}, "b is of incarnation 3"},
		"one is from before levels":        {all, map[string]announcement{"a": says(2, 4), "b": {}, "c": says(2, 4)}, "b runs a program without a version"},
		"nobody is known":                  {nil, nil, "no members"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := waitsFor(2, 4, test.members, test.announced)
			if (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
				t.Errorf("waits for %q, want %q", got, test.want)
			}
		})
	}
}

// TestLevelsAreCompared: what one member has not reached is no difference.
func TestLevelsAreCompared(t *testing.T) {
	for _, test := range []struct {
		applied1, applied2 uint64
		raised1, raised2   []uint64
		want               bool
	}{
		{9, 9, nil, nil, false},
		{9, 9, []uint64{4}, []uint64{4}, false},
		{9, 9, []uint64{4}, []uint64{5}, true},
		{9, 9, []uint64{4}, nil, true},
		{9, 3, []uint64{4}, nil, false},
		{3, 9, nil, []uint64{4}, false},
		{4, 9, nil, []uint64{4}, true},
		{9, 7, []uint64{4, 8}, []uint64{4}, false},
		{9, 8, []uint64{4, 8}, []uint64{4}, true},
	} {
		if got := differ(test.applied1, test.raised1, test.applied2, test.raised2); got != test.want {
			t.Errorf("%+v: %t", test, got)
		}
		if got := differ(test.applied2, test.raised2, test.applied1, test.raised1); got != test.want {
			t.Errorf("%+v the other way round: %t", test, got)
		}
	}
}
