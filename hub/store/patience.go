package store

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// patience has a follower stand for election between one and two heartbeat time-outs
// after the leader's last word, which is what Raft asks for (Ongaro, section 3.4).
// The timer in hashicorp/raft does not begin anew at a word: it looks every one to two
// time-outs, and when it finds a word younger than one it looks again one to two
// later, so that some followers wait for three.
//
// Members have their turns one after another, so that no two of them stand at the
// same moment and split the votes.
type patience struct {
	self      raft.ServerID
	heartbeat time.Duration
	raft      *raft.Raft
	log       *slog.Logger
}

// turns is how many turns there are at least between one and two time-outs.
const turns = 5

// turn is after how long without a word of the leader a member stands: of n voters
// the one that is at place, from 0, in an order that all know. luck is from 0 to 1;
// it keeps the turns of places apart, and the same place from always being right or
// wrong by the same.
//
// Nobody has the first turn: a leader's words reach the others up to a fifth of a
// time-out apart, and who stands while another heard the leader less than a time-out
// ago is refused (ballots).
func turn(heartbeat time.Duration, place, n int, luck float64) time.Duration {
	width := heartbeat / time.Duration(max(turns, n+1))
	return heartbeat + time.Duration(place+1)*width + time.Duration(luck*float64(width/2))
}

// place of self among the voters by name, and how many there are; -1 if it has no
// vote.
func place(self raft.ServerID, servers []raft.Server) (place, voters int) {
	var names []raft.ServerID
	for _, s := range servers {
		if s.Suffrage == raft.Voter {
			names = append(names, s.ID)
		}
	}
	slices.SortFunc(names, cmp.Compare[raft.ServerID])
	return slices.Index(names, self), len(names)
}

func (p *patience) run(ctx context.Context) {
	wait := p.heartbeat
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = p.look(time.Now(), rand.Float64())
	}
}

// look ends the patience if it is time, and says when to look again.
func (p *patience) look(now time.Time, luck float64) time.Duration {
	place, voters := place(p.self, p.raft.GetConfiguration().Configuration().Servers)
	last := p.raft.LastContact()
	// Who has never heard a leader is at its start: that is left to Raft's own timer.
	if place < 0 || last.IsZero() || p.raft.State() != raft.Follower {
		return p.heartbeat
	}
	if left := turn(p.heartbeat, place, voters, luck) - now.Sub(last); left > 0 {
		return left
	}
	if err := p.end(); err != nil {
		p.log.Error("the leader is silent, and Raft's timer cannot be set", "error", err)
	}
	return p.heartbeat
}

// longer is by how much the time-out is made longer, so that it can get shorter.
const longer = time.Nanosecond

// end has Raft look at once whether it heard the leader within a time-out, and stand
// for election if not: it does so when its time-out gets shorter.
func (p *patience) end() error {
	for _, heartbeat := range []time.Duration{p.heartbeat + longer, p.heartbeat} {
		c := p.raft.ReloadableConfig()
		c.HeartbeatTimeout = heartbeat
		if err := p.raft.ReloadConfig(c); err != nil {
			return fmt.Errorf("set Raft's heartbeat time-out to %s: %w", heartbeat, err)
		}
	}
	return nil
}
