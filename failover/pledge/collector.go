package pledge

import (
	"maps"
	"slices"
	"time"

	"tripod.dev/tripod/failover/lease"
)

// askedWindow is how many questions a Collector remembers; an answer that is
// older than a TTL is worthless.
const askedWindow = 64

// Role is the primary role that pledges keep, as the hub last granted it.
type Role struct {
	Incarnation uint64
	Epoch       int64
	// Pledgers are all whose pledge is needed. Without any the role ends with
	// the lease: nobody's word is no proof of anything.
	Pledgers []string
}

// Needed joins whom the grant names with the standbys that the copy itself surely
// waits for, without the primary. The copy may know of one that no grant has
// named yet; but the hub may have committed it to the sync set already, and
// would then promote it without a further proof.
func Needed(primary string, granted, waits []string) []string {
	all := slices.Concat(granted, waits)
	all = slices.DeleteFunc(all, func(name string) bool { return name == primary })
	slices.Sort(all)
	return slices.Compact(all)
}

// Collector is the primary's side for one dataset. It is not safe for
// concurrent use.
type Collector struct {
	config lease.Config
	role   Role
	asked  map[uint64]time.Duration
	last   uint64
	given  map[string]time.Duration // when the newest question was asked that each answered
}

// NewCollector returns one that holds no role.
func NewCollector(c lease.Config) *Collector {
	return &Collector{config: c, asked: map[uint64]time.Duration{}, given: map[string]time.Duration{}}
}

// Hold names the role to keep. Pledges for another incarnation or epoch count no
// longer; those of pledgers that stay do.
func (c *Collector) Hold(r Role) {
	if r.Incarnation != c.role.Incarnation || r.Epoch != c.role.Epoch {
		clear(c.given)
		clear(c.asked)
	}
	c.role = r
	c.role.Pledgers = slices.Clone(r.Pledgers)
}

// Lose forgets the role: a newer grant does not name it.
func (c *Collector) Lose() { c.Hold(Role{}) }

// Role is what Hold was last told.
func (c *Collector) Role() Role { return c.role }

// Due is true when it is time to ask: the lease ends within two and a half ticks.
// A Collector must be asked each half tick: then the pledges are there before a
// guard, which asks each tick, asks for the last time. A pledger of a healthy fleet
// is never asked, so that no promotion waits for it: there the newest answered
// heartbeat is up to two ticks old, one until the next is sent and one until the
// leader's next renewal, of the five that a lease has.
func (c *Collector) Due(leaseEnds, now time.Duration) bool {
	return len(c.role.Pledgers) > 0 && now >= leaseEnds-c.config.Tick*5/2
}

// Ask numbers the next question, which is about to be sent at now, the same to
// every pledger.
func (c *Collector) Ask(now time.Duration) uint64 {
	c.last++
	c.asked[c.last] = now
	delete(c.asked, c.last-askedWindow)
	return c.last
}

// Answer takes a pledge for question seq at the role's incarnation and epoch. It
// is false, and nothing changed, when the pledge is worthless.
func (c *Collector) Answer(pledger string, seq uint64, incarnation uint64, epoch int64) bool {
	asked, ok := c.asked[seq]
	if !ok || incarnation != c.role.Incarnation || epoch != c.role.Epoch {
		return false
	}
	if last, ok := c.given[pledger]; !ok || asked > last {
		c.given[pledger] = asked
	}
	return true
}

// Missing are the pledgers without a pledge that is fresh at now.
func (c *Collector) Missing(now time.Duration) []string {
	var names []string
	for _, p := range c.role.Pledgers {
		if asked, ok := c.given[p]; !ok || now >= c.config.Deadline(asked) {
			names = append(names, p)
		}
	}
	return names
}

// Deadline is when the role ends that pledges keep, on the asker's clock; ok is
// false while they keep none.
func (c *Collector) Deadline() (deadline time.Duration, ok bool) {
	for i, p := range c.role.Pledgers {
		asked, given := c.given[p]
		if !given {
			return 0, false
		}
		if ends := c.config.Deadline(asked); i == 0 || ends < deadline {
			deadline = ends
		}
	}
	return deadline, len(c.role.Pledgers) > 0
}

// Given are the pledgers that ever gave a pledge for this role, sorted.
func (c *Collector) Given() []string { return slices.Sorted(maps.Keys(c.given)) }
