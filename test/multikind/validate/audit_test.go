package validate

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"tripod.dev/tripod/test/multikind/traffic"
)

// Each violation is planted once, so that no counter of the audit is unable to
// fail.
func TestAudit(t *testing.T) {
	sent := func(id string, at int64) traffic.Record {
		return traffic.Record{ID: id, Event: traffic.Sent, Monotonic: at}
	}
	acknowledged := func(id string, at, timeline int64) traffic.Record {
		return traffic.Record{ID: id, Event: traffic.Acknowledged, Monotonic: at, Timeline: timeline}
	}
	unknown := func(id string, at int64) traffic.Record {
		return traffic.Record{ID: id, Event: traffic.Unknown, Monotonic: at}
	}
	primary := func(balance int64, transfers ...Transfer) Copy {
		return Copy{Name: "north-1", Primary: true, Balance: balance, Transfers: transfers}
	}
	replica := func(transfers ...Transfer) Copy {
		return Copy{Name: "north-2", Balance: 100, Transfers: transfers}
	}
	tests := map[string]struct {
		journals []traffic.Record
		copies   []Copy
		want     Report
	}{
		"everything acknowledged is there once": {
			journals: []traffic.Record{sent("a", 1), acknowledged("a", 2, 1), sent("b", 3), acknowledged("b", 4, 2)},
			copies:   []Copy{primary(100, Transfer{"a", 1}, Transfer{"b", 2}), replica(Transfer{"a", 1})},
			want:     Report{Sent: 2, Acknowledged: 2, BalanceKept: true, Primaries: 1},
		},
		"an unknown transfer may have happened or not": {
			journals: []traffic.Record{sent("a", 1), unknown("a", 2), sent("b", 3), unknown("b", 4)},
			copies:   []Copy{primary(100, Transfer{"a", 1})},
			want:     Report{Sent: 2, Unknown: 2, BalanceKept: true, Primaries: 1},
		},
		"an acknowledged transfer is missing": {
			journals: []traffic.Record{sent("a", 1), acknowledged("a", 2, 1)},
			copies:   []Copy{primary(100)},
			want:     Report{Sent: 1, Acknowledged: 1, Lost: 1, BalanceKept: true, Primaries: 1},
		},
		"a transfer stands twice": {
			journals: []traffic.Record{sent("a", 1), acknowledged("a", 2, 1)},
			copies:   []Copy{primary(100, Transfer{"a", 1}, Transfer{"a", 1})},
			want:     Report{Sent: 1, Acknowledged: 1, Duplicated: 1, BalanceKept: true, Primaries: 1},
		},
		"a transfer nobody sent": {
			copies: []Copy{primary(100, Transfer{"x", 1})},
			want:   Report{NeverSent: 1, BalanceKept: true, Primaries: 1},
		},
		"money was made": {
			copies: []Copy{primary(101)},
			want:   Report{Primaries: 1},
		},
		"two copies accept writes": {
			copies: []Copy{primary(100), primary(100)},
			want:   Report{BalanceKept: true, Primaries: 2},
		},
		"the old primary acknowledged after the new one had begun": {
			journals: []traffic.Record{
				sent("new", 10), acknowledged("new", 11, 2),
				sent("old", 12), acknowledged("old", 13, 1),
			},
			copies: []Copy{primary(100, Transfer{"new", 2}, Transfer{"old", 1})},
			want:   Report{Sent: 2, Acknowledged: 2, AcceptedByTwoEpochs: 1, BalanceKept: true, Primaries: 1},
		},
		"a transfer that was under way at the switch is not two writers": {
			journals: []traffic.Record{
				sent("old", 9), sent("new", 10), acknowledged("new", 11, 2), acknowledged("old", 12, 1),
			},
			copies: []Copy{primary(100, Transfer{"new", 2}, Transfer{"old", 1})},
			want:   Report{Sent: 2, Acknowledged: 2, BalanceKept: true, Primaries: 1},
		},
		"two copies hold a transfer under two timelines": {
			journals: []traffic.Record{sent("a", 1), acknowledged("a", 2, 2)},
			copies:   []Copy{primary(100, Transfer{"a", 2}), replica(Transfer{"a", 1})},
			want:     Report{Sent: 1, Acknowledged: 1, AcceptedByTwoEpochs: 1, BalanceKept: true, Primaries: 1},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := Audit(test.journals, test.copies, 100)
			if diff := cmp.Diff(test.want, got, cmpopts.IgnoreFields(Report{}, "Examples")); diff != "" {
				t.Errorf("report (-want +got):\n%s", diff)
			}
			if clean := got.Err() == nil; clean != got.Clean() {
				t.Errorf("Err and Clean disagree: %v", got.Err())
			}
		})
	}
}
