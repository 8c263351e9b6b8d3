package lease

import "time"

// pace tells whether a member applies renewals as they are proposed. Each says for
// how long the hub had been renewing when it was proposed, so the difference
// between the member's clock and that is the same for all that come in time, but
// for drift. A late one has a larger one, and those that come after a late one a
// smaller.
type pace struct {
	since     time.Duration // nothing was late from here on, as far as can be known
	known     bool          // low and high are
	low, high time.Duration // of the differences since then
	at        time.Duration // when the newest renewal was applied
}

func (p *pace) applied(steady, now, tolerance time.Duration, drift float64) {
	d := now - steady
	give := drifted(now-p.at, drift)
	p.low, p.high, p.at = min(p.low+give, d), max(p.high-give, d), now
	if !p.known || p.high-p.low > tolerance {
		p.since, p.known, p.low, p.high = now, true, d, d
	}
}

// drifted bounds by how much two clocks come apart in d.
func drifted(d time.Duration, drift float64) time.Duration {
	return time.Duration(2 * drift * float64(d))
}
