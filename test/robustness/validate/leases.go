package validate

import (
	"slices"
	"time"

	"tripod.dev/tripod/test/robustness/model"
)

// leaseOf is the lease with which all keys of events were written, 0 if there is
// none.
func (c *checker) leaseOf(events []model.Event) int64 {
	var lease int64
	for _, e := range events {
		of := c.revisions.leases[e.Item.Key]
		if of == 0 || lease != 0 && lease != of {
			return 0
		}
		lease = of
	}
	return lease
}

// ended is the revision at which each lease took its keys with it.
func (c *checker) ended() map[int64]int64 {
	out := map[int64]int64{}
	for revision, events := range c.revisions.events {
		if hasPut(events) {
			continue
		}
		if lease := c.leaseOf(events); lease != 0 {
			out[lease] = revision
		}
	}
	return out
}

// earliest is when a lease may have ended, given that its end was seen at seen.
func earliest(l model.Lease, seen time.Duration) time.Duration {
	from := l.Granted
	for _, r := range l.Renewals {
		if r.Alive && r.Call <= seen {
			from = r.Call
		}
	}
	at := from + l.TTL
	if l.Revoked > 0 {
		at = min(at, l.Revoked)
	}
	return at
}

func (c *checker) leases() {
	ended := c.ended()
	for _, l := range c.history.Leases {
		revision, over := ended[l.ID]
		if !over {
			continue
		}
		seen := c.revisions.seen[revision]
		if at := earliest(l, seen); seen+allowance < at {
			c.violate(LeaseKept, "lease %x of %s, granted at %s and renewed %v: its keys were gone at %s, before %s", l.ID, l.TTL, l.Granted, l.Renewals, seen, at)
		}
		if slices.ContainsFunc(l.Renewals, func(r model.Renewal) bool { return r.Alive && r.Call > seen }) {
			c.violate(LeaseEnded, "lease %x: its keys were gone at %s, and it was renewed after that: %v", l.ID, seen, l.Renewals)
		}
	}
}
