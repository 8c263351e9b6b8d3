package member

import (
	"context"
	"time"
)

// Preferred picks the member to which leadership should move: a voter of the
// preferred center that has been caught up for long enough. Empty is to stay: the
// leader is there, or nobody is fit. The wait is the hysteresis: a center that
// comes and goes does not pull the leadership back and forth.
func Preferred(peers []Peer, leader, center string, after time.Duration) string {
	self := find(peers, leader)
	if center == "" || self == nil || self.Center == center {
		return ""
	}
	var best *Peer
	for _, p := range peers {
		if p.Voter && p.Alive && p.Center == center && p.Unable == "" && p.Steady >= after {
			if best == nil || p.Behind < best.Behind {
				best = &p
			}
		}
	}
	if best == nil {
		return ""
	}
	return best.Name
}

// prefer moves the leadership to the preferred center.
func (a *Autopilot) prefer(ctx context.Context) {
	to := Preferred(a.peers(time.Now()), a.members.Self(), a.config.PreferredCenter, a.config.PreferAfter)
	if to == "" {
		return
	}
	a.config.Logger.Info("handing the leadership over to the preferred center", "peer", to, "center", a.config.PreferredCenter)
	if err := a.members.Transfer(ctx, to); err != nil {
		a.config.Logger.Warn("the leadership stays here", "peer", to, "error", err)
	}
}
