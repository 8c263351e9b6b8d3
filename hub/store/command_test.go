package store

import (
	"encoding/hex"
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

// released holds one example of every command ever released. The files under
// testdata/commands are what a log may contain: they are never changed.
func released() map[string]Op {
	return map[string]Op{
		"v1-put":    Put(&pb.PutRequest{Key: []byte("k"), Value: []byte("v"), Lease: 7, PrevKv: true}),
		"v1-delete": Delete(&pb.DeleteRangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), PrevKv: true}),
		"v1-txn": Txn(&pb.TxnRequest{
			Compare: []*pb.Compare{{Key: []byte("k"), Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: 3}}},
			Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("k"), Value: []byte("w")}}}},
			Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("k")}}}},
		}),
		"v1-compact":           Compact(&pb.CompactionRequest{Revision: 9, Physical: true}),
		"v1-lease-grant":       LeaseGrant(&pb.LeaseGrantRequest{ID: 5, TTL: 60}),
		"v1-lease-revoke":      LeaseRevoke(&pb.LeaseRevokeRequest{ID: 5}),
		"v1-lease-checkpoint":  leaseCheckpoint(&pb.LeaseCheckpointRequest{Checkpoints: []*pb.LeaseCheckpoint{{ID: 5, Remaining_TTL: 30}}}),
		"v2-alarm":             alarmed(&pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: 7, Alarm: pb.AlarmType_NOSPACE}),
		"v1-lease-renewal":     leaseRenewal(&raftlogv1.LeaseRenewal{Clusters: []string{"north-1a", "south-1a"}, Tick: 12, Incarnation: 1}),
		"v1-start-incarnation": startIncarnation(&raftlogv1.StartIncarnation{Incarnation: 2, ClusterId: 99, Reason: "bootstrap"}),
	}
}

func TestCommandsAreEncodedAsReleased(t *testing.T) {
	for name, op := range released() {
		t.Run(name, func(t *testing.T) {
			got, err := encodeOp(op)
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
			decoded, err := decodeCommand(want)
			if err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(decoded, op.command) {
				t.Errorf("decoded %v, want %v", decoded, op.command)
			}
		})
	}
}

func TestUnknownCommandsAreRefused(t *testing.T) {
	tests := map[string]struct {
		command *raftlogv1.Command
		want    string
	}{
		"a newer version is refused with the remedy":        {&raftlogv1.Command{Version: CommandVersion + 1, Op: &raftlogv1.Command_Put{}}, "upgrade this member"},
		"an operation without a known number is refused":    {&raftlogv1.Command{Version: 1}, "without a known operation"},
		"a known operation of the present version is taken": {&raftlogv1.Command{Version: CommandVersion, Op: &raftlogv1.Command_Put{}}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			data, err := proto.Marshal(test.command)
			if err != nil {
				t.Fatal(err)
			}
			_, err = decodeCommand(data)
			if got := fmt.Sprint(err); test.want == "" && err != nil || !strings.Contains(got, test.want) && test.want != "" {
				t.Fatalf("got %q, want %q", got, test.want)
			}
		})
	}
}
