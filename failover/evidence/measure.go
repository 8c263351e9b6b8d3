package evidence

import (
	"fmt"
	"strings"
	"time"

	"tripod.dev/tripod/failover"
)

// Measured is what a chain says of its run. All durations count on monotonic
// clocks from the last renewal of the lost side.
type Measured struct {
	Detect, Fence, Promote, Route, RTO time.Duration
	RPO                                string
	Approvers                          []string
}

// Measure recomputes RTO and RPO from the records alone.
func Measure(chain []Record) (Measured, error) {
	var m Measured
	at := map[failover.Mark]time.Duration{}
	for _, r := range chain {
		if r.Mark != "" {
			// Of several datasets the last one to pass a mark counts.
			at[failover.Mark(r.Mark)] = max(at[failover.Mark(r.Mark)], time.Duration(r.SinceHeardMicros)*time.Microsecond)
		}
		if r.Kind == string(failover.NoteApproval) {
			m.Approvers = append(m.Approvers, r.Subject)
		}
		if r.Mark == string(failover.MarkRouted) {
			_, m.RPO, _ = strings.Cut(r.Text, "RPO ")
		}
	}
	for _, mark := range []failover.Mark{failover.MarkDetected, failover.MarkFenced, failover.MarkPromoted, failover.MarkRouted} {
		if _, ok := at[mark]; !ok {
			return m, fmt.Errorf("evidence has no record of mark %s: the run was not completed, nothing can be measured", mark)
		}
	}
	m.Detect = at[failover.MarkDetected]
	m.Fence = at[failover.MarkFenced] - m.Detect
	m.Promote = at[failover.MarkPromoted] - at[failover.MarkFenced]
	m.RTO = at[failover.MarkRouted]
	m.Route = m.RTO - at[failover.MarkPromoted]
	return m, nil
}
