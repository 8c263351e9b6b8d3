package store

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	raftlogv1 "tripod.dev/tripod/proto/raftlog/v1"
)

var update = flag.Bool("update", false, "write golden files that do not exist yet")

// releasedOp is a command as it is written at a level, in an incarnation.
type releasedOp struct {
	Op
	level       uint32
	incarnation uint64
}

func (r releasedOp) encoded() ([]byte, error) { return r.at(r.level, r.incarnation) }

// released holds one example of every command ever released, by the level of which
// it is. The files under testdata/commands are what a log may contain: they are
// never changed.
func released() map[string]releasedOp {
	list := map[string]releasedOp{}
	add := func(level uint32, incarnation uint64, ops map[string]Op) {
		for name, op := range ops {
			list[name] = releasedOp{op, level, incarnation}
		}
	}
	txn := Txn(&pb.TxnRequest{
		Compare: []*pb.Compare{{Key: []byte("k"), Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: 3}}},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("k"), Value: []byte("w")}}}},
		Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("k")}}}},
	})
	checkpoint := leaseCheckpoint(&pb.LeaseCheckpointRequest{Checkpoints: []*pb.LeaseCheckpoint{{ID: 5, Remaining_TTL: 30}}})
	add(1, 0, map[string]Op{
		"v1-put":               Put(&pb.PutRequest{Key: []byte("k"), Value: []byte("v"), Lease: 7, PrevKv: true}),
		"v1-delete":            Delete(&pb.DeleteRangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), PrevKv: true}),
		"v1-txn":               txn,
		"v1-compact":           Compact(&pb.CompactionRequest{Revision: 9, Physical: true}),
		"v1-lease-grant":       LeaseGrant(&pb.LeaseGrantRequest{ID: 5, TTL: 60}),
		"v1-lease-revoke":      LeaseRevoke(&pb.LeaseRevokeRequest{ID: 5}),
		"v1-lease-checkpoint":  checkpoint,
		"v1-lease-renewal":     leaseRenewal(&raftlogv1.LeaseRenewal{Clusters: []string{"north-1a", "south-1a"}, Tick: 12, Incarnation: 1}),
		"v1-start-incarnation": startIncarnation(&raftlogv1.StartIncarnation{Incarnation: 2, ClusterId: 99, Reason: "bootstrap"}),
	})
	add(2, 3, map[string]Op{
		"v2-put":              Put(&pb.PutRequest{Key: []byte("k"), Value: []byte("v"), Lease: 7}),
		"v2-delete":           Delete(&pb.DeleteRangeRequest{Key: []byte("k")}),
		"v2-txn":              txn,
		"v2-compact":          Compact(&pb.CompactionRequest{Revision: 9}),
		"v2-lease-grant":      LeaseGrant(&pb.LeaseGrantRequest{ID: 5, TTL: 60}),
		"v2-lease-revoke":     LeaseRevoke(&pb.LeaseRevokeRequest{ID: 5}),
		"v2-lease-checkpoint": checkpoint,
		"v2-alarm":            alarmed(&pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: 7, Alarm: pb.AlarmType_NOSPACE}),
		"v2-raise-level": raiseLevel(&raftlogv1.RaiseLevel{Level: 2, Members: []*raftlogv1.Announcement{
			{Member: "hub-a", Level: 2, Version: "v0.2.0"}, {Member: "hub-b", Level: 3, Version: "v0.3.0"},
		}}),
	})
	return list
}

func TestCommandsAreEncodedAsReleased(t *testing.T) {
	for name, op := range released() {
		t.Run(name, func(t *testing.T) {
			got, err := op.encoded()
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", "commands", name+".hex")
			text, err := os.ReadFile(path)
			if os.IsNotExist(err) && *update {
				if err := os.WriteFile(path, []byte(hex.EncodeToString(got)+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if err != nil {
				t.Fatalf("a new command needs a golden file (go test -update): %v", err)
			}
			want, err := hex.DecodeString(strings.TrimSpace(string(text)))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("encoding changed; a released command must not (-released +now):\n%s", diff)
			}
			decoded, err := (&machine{understands: CommandVersion}).decode(want, "it")
			if err != nil {
				t.Fatal(err)
			}
			if fmt.Sprintf("v%d", decoded.GetVersion()) != strings.Split(name, "-")[0] {
				t.Errorf("decoded version %d", decoded.GetVersion())
			}
			again, err := encode(decoded)
			if err != nil || !bytes.Equal(again, want) {
				t.Errorf("decoded and encoded again: %x, %v", again, err)
			}
		})
	}
}

func TestUnknownCommandsAreRefused(t *testing.T) {
	put := &raftlogv1.Command_Put{}
	tests := map[string]struct {
		command     *raftlogv1.Command
		understands uint32
		want        []string // in the refusal; none: taken
	}{
		"a newer version is refused with member, level and remedy": {&raftlogv1.Command{Version: 3, Op: put}, 2, []string{
			`member "m1"`, "up to level 2", "it is of level 3", "install the tripod-hub that the other members run"}},
		"an older build meets the present version": {&raftlogv1.Command{Version: 2, Op: put}, 1, []string{"up to level 1", "it is of level 2"}},
		"a raise names what the members ran": {&raftlogv1.Command{Version: 2, Op: &raftlogv1.Command_RaiseLevel{
			RaiseLevel: &raftlogv1.RaiseLevel{Level: 2, Members: []*raftlogv1.Announcement{{Member: "m0", Level: 2, Version: "v2.1"}}}}}, 1, []string{"v2.1"}},
		"an operation without a known number is refused":    {&raftlogv1.Command{Version: 1}, 2, []string{"install the tripod-hub"}},
		"a known operation of the present version is taken": {&raftlogv1.Command{Version: CommandVersion, Op: put}, CommandVersion, nil},
		"what is older than the program is taken":           {&raftlogv1.Command{Version: 1, Op: put}, CommandVersion, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			data, err := proto.Marshal(test.command)
			if err != nil {
				t.Fatal(err)
			}
			if versionOf(data) != test.command.GetVersion() {
				t.Errorf("version of the encoded command %d, want %d", versionOf(data), test.command.GetVersion())
			}
			_, err = (&machine{member: "m1", understands: test.understands}).decode(data, "it")
			if (err != nil) != (test.want != nil) || err != nil && !errors.Is(err, ErrTooOld) {
				t.Fatalf("got %v, want %q", err, test.want)
			}
			for _, text := range test.want {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("got %q, want %q in it", err, text)
				}
			}
		})
	}
}

func TestNothingAboveTheLevelIsWritten(t *testing.T) {
	for name, op := range released() {
		for level := uint32(1); level <= CommandVersion; level++ {
			data, err := op.at(level, 4)
			if err != nil {
				if op.command.GetVersion() <= level {
					t.Errorf("%s at level %d: %v", name, level, err)
				}
				continue
			}
			if versionOf(data) > level {
				t.Errorf("%s at level %d is written with version %d", name, level, versionOf(data))
			}
			if old := (&raftlogv1.Command{}); level == 1 && (proto.Unmarshal(data, old) != nil || old.GetIncarnation() != 0) {
				t.Errorf("%s at level 1 has a field of level 2", name)
			}
		}
	}
}
