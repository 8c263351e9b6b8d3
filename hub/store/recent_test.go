package store

import (
	"bytes"
	"log/slog"
	"math/rand/v2"
	"testing"

	"github.com/hashicorp/raft"
)

// TestRecentLogReadsLikeTheLog plays random appends and deletions, as raft does
// them, and compares every read with what was written.
func TestRecentLogReadsLikeTheLog(t *testing.T) {
	d, err := openDisk(Config{DataDir: t.TempDir(), Name: "m", Logger: slog.New(slog.DiscardHandler)}.WithDefaults())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
	}()
	const limit = 4096
	r := newRecentLog(d.log, limit)
	rng := rand.New(rand.NewPCG(1, 2))
	var want []raft.Log // want[i] has index first+i
	first, term := uint64(1), uint64(1)
	fromMemory := 0
	for range 300 {
		switch rng.IntN(6) {
		case 0: // a conflicting end is cut off
			if n := uint64(len(want)); n > 2 {
				keep := n - 1 - rng.Uint64N(2)
				if err := r.DeleteRange(first+keep, first+n-1); err != nil {
					t.Fatal(err)
				}
				want, term = want[:keep], term+1
			}
		case 1: // a snapshot makes the beginning unnecessary
			if n := uint64(len(want)); n > 8 {
				drop := n / 2
				if err := r.DeleteRange(first, first+drop-1); err != nil {
					t.Fatal(err)
				}
				want, first = want[drop:], first+drop
			}
		default:
			var batch []*raft.Log
			for range 1 + rng.IntN(5) {
				e := raft.Log{Index: first + uint64(len(want)), Term: term, Data: bytes.Repeat([]byte{byte(rng.IntN(256))}, rng.IntN(700))}
				want = append(want, e)
				batch = append(batch, &e)
			}
			if err := r.StoreLogs(batch); err != nil {
				t.Fatal(err)
			}
			for _, e := range batch {
				e.Data, e.Term = nil, 0 // raft's to reuse
			}
		}
		fromMemory += len(r.entries)
		if r.bytes > limit {
			t.Fatalf("%d bytes are kept, more than %d", r.bytes, limit)
		}
		for i := range want {
			var got raft.Log
			if err := r.GetLog(first+uint64(i), &got); err != nil {
				t.Fatal(err)
			}
			if got.Index != want[i].Index || got.Term != want[i].Term || !bytes.Equal(got.Data, want[i].Data) {
				t.Fatalf("entry %d is %d of term %d with %d bytes, want term %d with %d bytes",
					want[i].Index, got.Index, got.Term, len(got.Data), want[i].Term, len(want[i].Data))
			}
		}
	}
	if fromMemory == 0 {
		t.Fatal("nothing was ever kept in memory")
	}
}
