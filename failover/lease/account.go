package lease

import "time"

// account is what a member knows of one cluster's renewals: those whose lease may
// run, and of those before ever fewer the older they are. Both ascend in both fields.
type account struct {
	recent []Renewal
	past   []Renewal
	thin   int // the length at which past is thinned next

	steady time.Duration // for how long the hub had been renewing at the newest one, as that said; 0 if it did not
	lapsed time.Duration // when the newest one was applied after which the lease ran out
	ever   bool          // it did, as far as this member knows
}

// coarse is how much older than it is a renewal may be said to be whose lease is
// over, at least: nobody waits for it any more, but people read how long ago it was.
const coarse = time.Second

// applied notes r and retires those whose lease, which lasts wait, is over by then.
func (a *account) applied(r Renewal, wait time.Duration) {
	if n := len(a.recent); n > 0 && a.recent[n-1].Revision >= r.Revision {
		r.Revision = a.recent[n-1].Revision // a restored log may repeat; the later time is the safe one
		a.recent = a.recent[:n-1]
	}
	first := 0
	for first < len(a.recent) && a.recent[first].AppliedAt+wait <= r.AppliedAt {
		first++
	}
	a.past = append(a.past, a.recent[:first]...)
	a.recent = append(a.recent[first:], r)
	if len(a.past) >= a.thin {
		a.past = thinned(a.past, r.AppliedAt)
		a.thin = 2*len(a.past) + 64
	}
}

// told notes, before it is applied at now, that a renewal says that the hub has been
// renewing for steady. The lease has run out if that is longer than a lease after the
// one before: whoever is not renewed while the hub itself is out has not fallen
// silent. The counts of two proposers differ a little, so this member's own clock must
// say so too, if it has been prompt for as long.
func (a *account) told(steady, wait, prompt, now time.Duration) {
	gap := steady - a.steady
	last, _ := a.last(0)
	if a.steady > 0 && gap > wait && (gap > prompt || now-last.AppliedAt > wait) {
		a.lapsed, a.ever = now-gap, true
	}
	a.steady = steady
}

// thinned drops, in place, what an older one says nearly as well at now: the error
// is at most a thirty-second of the age, because an age doubles before the error can.
func thinned(rs []Renewal, now time.Duration) []Renewal {
	kept := rs[:0]
	for _, r := range rs {
		if n := len(kept); n == 0 || r.AppliedAt-kept[n-1].AppliedAt > max(coarse, (now-r.AppliedAt)/64) {
			kept = append(kept, r)
		}
	}
	return kept
}

// last is the newest one below revision, of any revision if that is 0.
func (a *account) last(revision int64) (Renewal, bool) {
	if a == nil {
		return Renewal{}, false
	}
	for _, rs := range [...][]Renewal{a.recent, a.past} {
		for i := len(rs) - 1; i >= 0; i-- {
			if revision == 0 || rs[i].Revision < revision {
				return rs[i], true
			}
		}
	}
	return Renewal{}, false
}
