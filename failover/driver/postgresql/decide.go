package postgresql

import (
	"fmt"
	"maps"
	"slices"

	"tripod.dev/tripod/failover/driver"
	"tripod.dev/tripod/failover/driver/postgresql/wal"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// evidence is all that the choice of a method rests on.
type evidence struct {
	// cluster is this copy's.
	cluster string
	status  *agentv1.GuardStatus
	found   *agentv1.Divergence
	// promoter is the cluster that began the timeline after the fork, and
	// promoted the epoch at which, as the source's own data says.
	promoter string
	promoted int64
	// source is the primary of epoch, and timeline the one that it is on.
	source   string
	epoch    int64
	timeline int64
	// own and theirs say who began the timelines of this copy, as far as that is
	// known, and those of the source.
	own, theirs map[int64]string
	// kin compares the logs with which the copy's timeline and the source's of that
	// number begin.
	kin kinship
	// begun is the cluster that began the timeline this copy is on, as the
	// source's own data says; empty if it does not.
	begun string
	// oldest is where the log that the source still has begins.
	oldest  wal.LSN
	discard bool
}

// choice is what a resynchronisation will do; refusal is empty if it may.
type choice struct {
	method    driver.Method
	keepAside bool
	refusal   string
}

// decide is pure. Nothing past a fork is taken back without approval unless no
// client can have been told that it is durable.
func decide(e evidence) choice {
	d := e.found
	switch {
	case d.GetEmpty():
		return choice{method: driver.MethodCopy}
	case e.status.GetTorn():
		// The rewind that did not finish was allowed, and kept the log aside.
		return choice{method: driver.MethodCopy}
	case d.GetForeign() && !e.discard:
		return choice{refusal: "it is not of the primary's lineage"}
	case d.GetForeign():
		return choice{method: driver.MethodCopy, keepAside: true}
	case e.namesake() != "" && !e.discard:
		return choice{refusal: e.namesake()}
	case e.namesake() != "":
		return choice{method: driver.MethodCopy, keepAside: true}
	case d.GetMeasured() && d.GetBytes() == 0:
		return e.attach()
	case e.discard:
		return choice{method: driver.MethodCopy, keepAside: true}
	case !d.GetMeasured():
		return choice{refusal: "what it holds cannot be counted"}
	case d.GetCommits() == 0:
		return choice{method: driver.MethodRewind}
	}
	if reason := e.acknowledged(); reason != "" {
		return choice{refusal: reason}
	}
	return choice{method: driver.MethodRewind}
}

// attach follows without taking anything back, unless the source has no longer
// the log that comes next.
func (e evidence) attach() choice {
	if end, err := wal.ParseLSN(e.found.GetEndPosition()); err == nil && end < e.oldest {
		return choice{method: driver.MethodCopy}
	}
	return choice{method: driver.MethodAttach}
}

// acknowledged says why a transaction past the fork may have been acknowledged;
// it is empty when none can.
//
// The rule: a primary acknowledges a write only after every standby it waits
// for has it. So what it wrote past the point where one of these standbys left
// its timeline was acknowledged to nobody. The old primary knows for itself
// whom it surely waited for. A replica knows only the sync set it heard, which
// is the primary's as long as it cannot shrink: under ZeroLoss.
func (e evidence) acknowledged() string {
	d, s := e.found, e.status
	switch {
	case e.neverOpened():
		return ""
	case d.GetForkTimeline() != d.GetEndTimeline():
		return "this copy had a timeline of its own"
	case e.promoter == "" || e.promoted <= 0:
		return "it is not recorded who began the primary's timeline"
	case s.GetHeldEpoch() > 0 && e.promoted <= s.GetHeldEpoch():
		return fmt.Sprintf("%s was promoted at epoch %d, not after this copy's %d", e.promoter, e.promoted, s.GetHeldEpoch())
	case s.GetHeldEpoch() > 0 && !s.GetStandby():
		if !slices.Contains(s.GetWaitsFor(), e.promoter) {
			return fmt.Sprintf("this copy did not wait for %s", e.promoter)
		}
		return ""
	}
	known := s.GetKnown()
	switch {
	case known.GetEpoch() <= 0 || known.GetEpoch() >= e.promoted:
		return "it is not known whom the primary of this copy waited for"
	case known.GetProtection() != agentv1.Protection_PROTECTION_ZERO_LOSS:
		return "the sync set of its primary may have been made smaller"
	case !slices.Contains(known.GetSyncSet(), e.promoter):
		return fmt.Sprintf("its primary %s did not wait for %s", known.GetPrimary(), e.promoter)
	}
	return ""
}

// neverOpened is true for the target of a switchover that returned: it was
// promoted, which began a timeline of its own, to wait for the source from the
// first write on; and the source never joined that timeline. One timeline alone,
// because what this copy knows is of the last epoch that it held.
func (e evidence) neverOpened() bool {
	d, s := e.found, e.status
	return d.GetEndTimeline() == d.GetForkTimeline()+1 && e.timeline == d.GetForkTimeline() &&
		!s.GetStandby() && s.GetHeldEpoch() > 0 && s.GetHeldEpoch() < e.epoch &&
		slices.Contains(s.GetWaitsFor(), e.source)
}

// namesake says why a timeline that this copy seems to share with the source may be
// another one of the same number: PostgreSQL takes the next that it has not seen,
// so two copies of one position that are promoted apart begin two that nothing in
// their histories tells apart. It is empty when they are surely the same.
//
// The log with which the timeline begins tells it for sure, while both have it. Without
// that: a former primary began the timeline that it is on, and a replica knows from the
// data of whom it followed who began it.
func (e evidence) namesake() string {
	d, s := e.found, e.status
	for _, timeline := range slices.Sorted(maps.Keys(e.own)) {
		mine, theirs := e.own[timeline], e.theirs[timeline]
		if timeline <= d.GetForkTimeline() && theirs != "" && theirs != mine {
			return fmt.Sprintf("its timeline %d was begun by %s, and the primary's of that number by %s", timeline, mine, theirs)
		}
	}
	end := d.GetEndTimeline()
	switch {
	case d.GetForkTimeline() != end || e.kin == kinSame:
	case e.kin == kinOther:
		return fmt.Sprintf("its timeline %d does not begin as the primary's of that number does", end)
	case s.GetStandby() && len(e.own) > 0 && e.own[end] == "":
		return fmt.Sprintf("it is not known who began timeline %d, which it is on", end)
	case !s.GetStandby() && s.GetHeldEpoch() > 0 && e.begun != "" && e.begun != e.cluster:
		return fmt.Sprintf("it began timeline %d itself, and the primary has another one of that number, which %s began", end, e.begun)
	}
	return ""
}
