package identity

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// peerCheck compares this member's CA with every peer's, once each. Not safe
// for concurrent use.
type peerCheck struct {
	identity *Identity
	pending  []PeerAddress
	same     int
	// others are "NAME has sha256:…" for peers with another CA.
	others []string
	// refusedBy holds the peers whose refusal has been logged.
	refusedBy map[string]bool
}

func newPeerCheck(i *Identity) *peerCheck {
	return &peerCheck{identity: i, pending: i.config.Peers, refusedBy: map[string]bool{}}
}

// round asks the peers not heard yet. It fails when the verdict is that this
// member, not its peers, is the odd one out.
func (p *peerCheck) round(ctx context.Context) error {
	if len(p.pending) == 0 {
		return nil
	}
	config := p.identity.config
	now := p.identity.trust.Load()
	own := now.shower().Fingerprint()
	var pending []PeerAddress
	for _, peer := range p.pending {
		result, err := askPeer(ctx, config, peer, purposeCompare)
		var refused *refusal
		switch {
		case errors.As(err, &refused):
			if !p.refusedBy[peer.Name] {
				p.refusedBy[peer.Name] = true
				config.Logger.Error("peer refuses this member", "member", peer.Name, "error", err)
			}
			pending = append(pending, peer)
		case err != nil:
			pending = append(pending, peer)
		case slices.ContainsFunc(append(result.Trusted, result.CAFingerprint), func(theirs string) bool {
			return slices.Contains(now.fingerprints(), theirs)
		}):
			p.same++
		default:
			p.others = append(p.others, fmt.Sprintf("%s (%s) has %s", peer.Name, peer.Address, result.CAFingerprint))
			config.Logger.Error("peer belongs to another hub: its CA differs", "member", peer.Name, "ca", result.CAFingerprint, "own", own)
		}
	}
	p.pending = pending
	return p.verdict(own)
}

// verdict: with the majority of the members on the other side, or everybody
// asked and most of them there, this member is wrong. A member that can only
// hear one odd peer goes on: that peer is refused by TLS, and by this rule once
// it has heard the rest. In a hub of two the bootstrap member is right.
func (p *peerCheck) verdict(own string) error {
	config := p.identity.config
	members := len(config.Peers) + 1
	decided := len(p.pending) == 0 || 2*len(p.others) > members
	if len(p.others) <= p.same || !decided || (members == 2 && config.Bootstrap) {
		return nil
	}
	return fmt.Errorf("identity: member %q has a CA that its peers do not have: %s is in %s, but %s: "+
		"this data directory is another hub's; stop the member, move the directory away and start it empty, so that it joins its peers",
		config.Name, own, p.identity.directory, strings.Join(p.others, ", "))
}
