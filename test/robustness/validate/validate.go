// Package validate says what in a history a correct store could not have done.
package validate

import (
	"fmt"
	"time"

	"tripod.dev/tripod/test/robustness/model"
)

// Violation is one thing that must not be.
type Violation struct {
	Rule   Rule
	Detail string
}

func (v Violation) String() string { return string(v.Rule) + ": " + v.Detail }

// Rule is what a violation violates.
type Rule string

// The rules.
const (
	Linearizable   Rule = "linearizable"        // requests took effect at one instant each, in between call and return
	Acknowledged   Rule = "acknowledged"        // what was acknowledged is in the history of revisions, as it was asked for
	Asked          Rule = "asked for"           // what is in the history of revisions was asked for, and happened once
	WatchesAgree   Rule = "watches agree"       // all watches tell the same of a revision
	WatchOrder     Rule = "watch order"         // revisions of a watch grow, and are told whole
	WatchComplete  Rule = "watch complete"      // between two revisions that a watch tells it leaves none out
	WatchStart     Rule = "watch start"         // a watch tells nothing from before its start
	WatchProgress  Rule = "watch progress"      // everything up to a notified revision was told before
	WatchCompacted Rule = "watch compacted"     // a watch is ended as compacted only if it is
	PastReads      Rule = "past reads"          // a read of an earlier revision gives what was then, or says compacted if it is
	LeaseKept      Rule = "lease kept"          // no lease ends before its time
	LeaseEnded     Rule = "lease ended"         // a lease that is over is not renewed
	MembersEqual   Rule = "members equal"       // at the end all members have the same state
	Undecided      Rule = "checker undecided"   // the checker ran out of time: not a violation, and not a proof
	limit               = 20                    // violations of one rule that are worth reading
	allowance           = 10 * time.Millisecond // between the suite's and a member's reading of the monotonic clock
)

type checker struct {
	history    *model.History
	revisions  *revisions
	violations []Violation
	count      map[Rule]int
}

func (c *checker) violate(rule Rule, format string, arguments ...any) {
	c.count[rule]++
	if c.count[rule] <= limit {
		c.violations = append(c.violations, Violation{Rule: rule, Detail: fmt.Sprintf(format, arguments...)})
	}
}

// Check returns everything that is wrong with h; patience bounds the search for an
// order of requests.
func Check(h *model.History, patience time.Duration) []Violation {
	c := &checker{history: h, count: map[Rule]int{}}
	c.gather()
	c.watches()
	c.attribute()
	c.pastReads()
	c.leases()
	c.members()
	// Without an agreed history of revisions there is nothing to hold requests to.
	if len(c.violations) == 0 {
		c.linearizable(patience)
	}
	return c.violations
}

func (c *checker) members() {
	for _, m := range c.history.Members {
		first := c.history.Members[0]
		if m.Hash != first.Hash || m.Revision != first.Revision || m.Compacted != first.Compacted {
			c.violate(MembersEqual, "%s has hash %x of revision %d compacted at %d, %s has %x of %d compacted at %d",
				m.Member, m.Hash, m.Revision, m.Compacted, first.Member, first.Hash, first.Revision, first.Compacted)
		}
	}
}
