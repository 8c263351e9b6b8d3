package validate

import (
	"fmt"
	"sort"

	"tripod.dev/tripod/test/multikind/traffic"
)

// Transfer is one row of a copy's transfers table.
type Transfer struct {
	ID       string
	Timeline int64
}

// Copy is one database's content.
type Copy struct {
	Name string
	// Primary is true when the copy accepts writes.
	Primary   bool
	Transfers []Transfer
	// Balance is the sum over all accounts.
	Balance int64
}

// Report is the audit's result. The first four are counts of violations.
type Report struct {
	Sent         int `json:"sent"`
	Acknowledged int `json:"acknowledged"`
	Unknown      int `json:"unknown"`

	// Lost were acknowledged and are not in the primary's copy.
	Lost int `json:"lost"`
	// NeverSent are in a copy and in no journal.
	NeverSent int `json:"neverSent"`
	// Duplicated are in one copy more than once.
	Duplicated int `json:"duplicated"`
	// AcceptedByTwoEpochs were acknowledged by one timeline although they were
	// sent after a later timeline had already acknowledged another, or stand
	// in two copies under two timelines.
	AcceptedByTwoEpochs int `json:"acceptedByTwoEpochs"`
	// BalanceKept is true when every copy's balances add up to the constant.
	BalanceKept bool `json:"balanceKept"`
	// Primaries is the number of copies that accept writes; it must be one.
	Primaries int `json:"primaries"`
	// Examples names a few offenders for a person.
	Examples []string `json:"examples,omitempty"`
}

// Clean is true when the audit found no violation.
func (r Report) Clean() bool {
	return r.Lost == 0 && r.NeverSent == 0 && r.Duplicated == 0 && r.AcceptedByTwoEpochs == 0 &&
		r.BalanceKept && r.Primaries == 1
}

// Err says what was violated, or nil.
func (r Report) Err() error {
	if r.Clean() {
		return nil
	}
	return fmt.Errorf("the ledger's audit failed: lost %d, never sent %d, duplicated %d, accepted by two epochs %d, balance kept %t, primaries %d; %v",
		r.Lost, r.NeverSent, r.Duplicated, r.AcceptedByTwoEpochs, r.BalanceKept, r.Primaries, r.Examples)
}

// Audit is pure: journals and copies in, report out. total is the constant sum
// of all balances.
func Audit(journals []traffic.Record, copies []Copy, total int64) Report {
	report := Report{BalanceKept: len(copies) > 0}
	sent, acknowledged := index(journals, &report)
	for _, c := range copies {
		report.auditCopy(c, sent, total)
		if c.Primary {
			report.Primaries++
			report.countLost(c, acknowledged)
		}
	}
	report.countTwoTimelines(copies)
	report.countLateAcknowledgements(journals, sent)
	return report
}

func index(journals []traffic.Record, report *Report) (sent, acknowledged map[string]traffic.Record) {
	sent, acknowledged = map[string]traffic.Record{}, map[string]traffic.Record{}
	for _, r := range journals {
		switch r.Event {
		case traffic.Sent:
			sent[r.ID] = r
			report.Sent++
		case traffic.Acknowledged:
			acknowledged[r.ID] = r
			report.Acknowledged++
		case traffic.Unknown:
			report.Unknown++
		case traffic.Refused:
		}
	}
	return sent, acknowledged
}

func (r *Report) auditCopy(c Copy, sent map[string]traffic.Record, total int64) {
	seen := map[string]int{}
	for _, t := range c.Transfers {
		seen[t.ID]++
		if seen[t.ID] == 2 {
			r.Duplicated++
			r.example("%s stands twice in %s", t.ID, c.Name)
		}
		if _, ok := sent[t.ID]; !ok {
			r.NeverSent++
			r.example("%s in %s was never sent", t.ID, c.Name)
		}
	}
	if c.Balance != total {
		r.BalanceKept = false
		r.example("balances in %s add up to %d, not %d", c.Name, c.Balance, total)
	}
}

func (r *Report) countLost(c Copy, acknowledged map[string]traffic.Record) {
	present := map[string]bool{}
	for _, t := range c.Transfers {
		present[t.ID] = true
	}
	for id := range acknowledged {
		if !present[id] {
			r.Lost++
			r.example("%s was acknowledged and is not in the primary %s", id, c.Name)
		}
	}
}

// countTwoTimelines finds a transfer that two copies hold under two timelines.
func (r *Report) countTwoTimelines(copies []Copy) {
	timelines := map[string]int64{}
	for _, c := range copies {
		for _, t := range c.Transfers {
			if other, ok := timelines[t.ID]; ok && other != t.Timeline {
				r.AcceptedByTwoEpochs++
				r.example("%s was accepted by timelines %d and %d", t.ID, other, t.Timeline)
			}
			timelines[t.ID] = t.Timeline
		}
	}
}

// countLateAcknowledgements finds two writers at one time: a transfer that an
// old timeline acknowledged although it was sent after a newer timeline had
// begun to acknowledge. All clients share one monotonic clock.
func (r *Report) countLateAcknowledgements(journals []traffic.Record, sent map[string]traffic.Record) {
	first := map[int64]int64{} // timeline -> first acknowledgement
	for _, rec := range journals {
		if rec.Event != traffic.Acknowledged {
			continue
		}
		if at, ok := first[rec.Timeline]; !ok || rec.Monotonic < at {
			first[rec.Timeline] = rec.Monotonic
		}
	}
	timelines := make([]int64, 0, len(first))
	for t := range first {
		timelines = append(timelines, t)
	}
	sort.Slice(timelines, func(i, j int) bool { return timelines[i] < timelines[j] })
	for _, rec := range journals {
		if rec.Event != traffic.Acknowledged {
			continue
		}
		for _, t := range timelines {
			if t > rec.Timeline && sent[rec.ID].Monotonic > first[t] {
				r.AcceptedByTwoEpochs++
				r.example("%s was accepted by timeline %d after timeline %d had begun", rec.ID, rec.Timeline, t)
				break
			}
		}
	}
}

func (r *Report) example(format string, args ...any) {
	if len(r.Examples) < 5 {
		r.Examples = append(r.Examples, fmt.Sprintf(format, args...))
	}
}
