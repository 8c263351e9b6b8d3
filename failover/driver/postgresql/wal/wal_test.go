package wal_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"tripod.dev/tripod/failover/driver/postgresql/wal"
)

func history(current int64, ends ...wal.End) wal.History {
	return wal.History{Ended: ends, Current: current}
}

func TestFork(t *testing.T) {
	type fork struct {
		Timeline int64
		At       wal.LSN
		OK       bool
	}
	tests := map[string]struct {
		a, b wal.History
		want fork
	}{
		"two copies on one timeline share it without end": {
			history(1), history(1), fork{1, wal.Endless, true}},
		"the old primary and the promoted standby part where the standby switched": {
			history(1), history(2, wal.End{Timeline: 1, LSN: 100}), fork{1, 100, true}},
		"a copy two promotions behind parts at the first of them": {
			history(1), history(3, wal.End{Timeline: 1, LSN: 100}, wal.End{Timeline: 2, LSN: 200}), fork{1, 100, true}},
		"siblings that both left timeline 1 part at the earlier end": {
			history(2, wal.End{Timeline: 1, LSN: 120}), history(3, wal.End{Timeline: 1, LSN: 100}), fork{1, 100, true}},
		"one timeline number reached at two positions is not one timeline": {
			history(2, wal.End{Timeline: 1, LSN: 120}), history(2, wal.End{Timeline: 1, LSN: 100}), fork{1, 100, true}},
		"copies of different lineage share nothing": {
			history(4), history(5), fork{}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got fork
			got.Timeline, got.At, got.OK = wal.Fork(tt.a, tt.b)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			got.Timeline, got.At, got.OK = wal.Fork(tt.b, tt.a)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error("the other way round: " + diff)
			}
		})
	}
}

func TestParseHistory(t *testing.T) {
	got, err := wal.ParseHistory("1\t0/3000148\tno recovery target specified\n\n2\t1/A\tx\n", 3)
	if err != nil {
		t.Fatal(err)
	}
	want := history(3, wal.End{Timeline: 1, LSN: 0x3000148}, wal.End{Timeline: 2, LSN: 1<<32 | 0xA})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := want.Next(1); got != 2 {
		t.Errorf("after timeline 1 came %d, want 2", got)
	}
	for timeline, end := range map[int64]wal.LSN{1: 0x3000148, 2: 1<<32 | 0xA, 3: wal.Endless, 4: 0} {
		if got := want.End(timeline); got != end {
			t.Errorf("timeline %d ended at %v, want %v", timeline, got, end)
		}
	}
	for _, bad := range []string{"1\n", "x\t0/1\n", "1\t01\n", "1\t0/zz\n"} {
		if _, err := wal.ParseHistory(bad, 2); err == nil {
			t.Errorf("%q was read as a history", bad)
		}
	}
}

func TestLSNRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := wal.LSN(rapid.Uint64().Draw(t, "lsn"))
		got, err := wal.ParseLSN(want.String())
		if err != nil || got != want {
			t.Fatalf("%v became %v (%v)", want, got, err)
		}
	})
}
