package member

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Peer is one member as the leader sees it when it decides. Ages and times are
// durations on the leader's clock; nothing here has a clock of its own.
type Peer struct {
	Name, Center string
	Voter        bool
	// Alive: it answered lately.
	Alive bool
	// Silent is how long it has not answered; 0 while it is alive.
	Silent time.Duration
	// Behind is how many entries it has not applied yet.
	Behind uint64
	// Steady is for how long it has been alive and not far behind.
	Steady time.Duration
	// Replaces is the member whose place it takes.
	Replaces string
	// Unable says why it can never have a vote as it is; empty if it can.
	Unable string
}

// Policy is what an operator may set.
type Policy struct {
	// MaxBehind is how many entries a member may lag to count as caught up.
	MaxBehind uint64
	// SteadyFor is how long it must have been caught up before it is promoted.
	SteadyFor time.Duration
	// RemoveDeadAfter is after how long a silent member is removed; 0 is never.
	RemoveDeadAfter time.Duration
}

// WithDefaults fills what is zero.
func (p Policy) WithDefaults() Policy {
	if p.MaxBehind == 0 {
		p.MaxBehind = 500
	}
	if p.SteadyFor == 0 {
		p.SteadyFor = 10 * time.Second
	}
	return p
}

// Step is one change of the configuration that the leader should make next.
type Step struct {
	Promote, Remove string
	// Why, for the log.
	Why string
}

// fewestVoters is under how many voters autopilot never goes by itself.
const fewestVoters = 3

// Next decides the next step; a zero Step is none. It is a pure function: the
// caller carries the step out, looks again and asks again. So a change of
// several members goes through configurations that each have a quorum, and a new
// leader goes on where the last one stopped.
//
// waiting says for each non-voter what its promotion waits for.
func Next(peers []Peer, policy Policy) (step Step, waiting map[string]string) {
	policy = policy.WithDefaults()
	waiting = map[string]string{}
	voters, ready := split(peers, policy, waiting)
	if !Quorate(voters) {
		for _, p := range ready {
			waiting[p.Name] = "a majority of the voters does not answer: nothing is changed until it does"
		}
		return Step{}, waiting
	}
	leaving := dead(peers, policy)
	for _, p := range ready {
		if p.Replaces != "" {
			leaving[p.Replaces] = fmt.Sprintf("%s has taken its place", p.Name)
		}
	}
	for _, v := range voters {
		if v.Replaces != "" && v.Alive {
			leaving[v.Replaces] = fmt.Sprintf("%s has taken its place", v.Name)
		}
	}
	best, found := bestGrowth(voters, ready, leaving)
	for _, p := range ready {
		if !slices.Contains(best, p.Name) {
			waiting[p.Name] = refusal(voters, p, leaving)
		}
	}
	if len(best) > 0 {
		return Step{Promote: best[0], Why: "it has caught up"}, waiting
	}
	return nextRemoval(peers, voters, leaving, found), waiting
}

// split returns the voters and the non-voters that may be promoted.
func split(peers []Peer, policy Policy, waiting map[string]string) (voters, ready []Peer) {
	for _, p := range peers {
		switch {
		case p.Voter:
			voters = append(voters, p)
		case p.Unable != "":
			waiting[p.Name] = p.Unable
		case !p.Alive:
			waiting[p.Name] = "it does not answer: start it with the hub token and the addresses of the members"
		case p.Behind > policy.MaxBehind:
			waiting[p.Name] = fmt.Sprintf("it catches up: %d entries to go", p.Behind)
		case p.Steady < policy.SteadyFor:
			waiting[p.Name] = fmt.Sprintf("it has caught up and must stay so for %v", policy.SteadyFor)
		default:
			ready = append(ready, p)
		}
	}
	return voters, ready
}

// dead names the members that have been silent for too long. Members of two
// centers never: that is a disaster, or a network, and not a broken machine.
func dead(peers []Peer, policy Policy) map[string]string {
	leaving := map[string]string{}
	if policy.RemoveDeadAfter == 0 {
		return leaving
	}
	centers := map[string]bool{}
	for _, p := range peers {
		if !p.Alive {
			centers[p.Center] = true
		}
	}
	if len(centers) > 1 {
		return leaving
	}
	for _, p := range peers {
		if !p.Alive && p.Silent >= policy.RemoveDeadAfter {
			leaving[p.Name] = fmt.Sprintf("it has been silent for %v", p.Silent.Round(time.Second))
		}
	}
	return leaving
}

// bestGrowth finds the most of the ready members that can be promoted so that,
// with those that leave gone, the hub has an odd number of voters and survives
// as much as before. found is false when even the leaving alone would not do.
func bestGrowth(voters, ready []Peer, leaving map[string]string) (names []string, found bool) {
	for subset := range 1 << len(ready) {
		var promoted []string
		target := remaining(voters, leaving)
		for i, p := range ready {
			if subset&(1<<i) != 0 {
				p.Voter = true
				target, promoted = append(target, p), append(promoted, p.Name)
			}
		}
		changed := len(promoted) > 0 || len(target) < len(voters)
		if !changed || !acceptable(voters, target) {
			continue
		}
		if !found || len(promoted) > len(names) {
			names, found = promoted, true
		}
	}
	return names, found
}

func acceptable(before, after []Peer) bool {
	if len(after)%2 == 0 || len(after) < min(len(before), fewestVoters) {
		return false
	}
	return Quorate(after) && (SurvivesCenter(after) || !SurvivesCenter(before))
}

func remaining(voters []Peer, leaving map[string]string) []Peer {
	var out []Peer
	for _, v := range voters {
		if _, leaves := leaving[v.Name]; !leaves {
			out = append(out, v)
		}
	}
	return out
}

// refusal says why a ready member is not promoted.
func refusal(voters []Peer, p Peer, leaving map[string]string) string {
	p.Voter = true
	after := append(remaining(voters, leaving), p)
	switch {
	case !Quorate(after):
		return fmt.Sprintf("with it %d voters would need %d that answer: bring the silent ones back first", len(after), quorum(len(after)))
	case len(after)%2 == 0:
		return fmt.Sprintf("%d voters survive no more losses than %d: add one more member, or let it replace one (tripodctl hub replace)", len(after), len(after)-1)
	default:
		return fmt.Sprintf("with it the loss of center %s would take the majority: add members in other centers, or let it replace one (tripodctl hub replace)", strings.Join(fatalCenters(after), " or "))
	}
}

// nextRemoval picks one member to remove: non-voters first, and a voter only if
// the hub can do without, and while those that stay have a majority that answers.
func nextRemoval(peers, voters []Peer, leaving map[string]string, voterToo bool) Step {
	for _, wantVoter := range []bool{false, true} {
		for _, p := range peers {
			why, leaves := leaving[p.Name]
			if !leaves || p.Voter != wantVoter {
				continue
			}
			if p.Voter && (!voterToo || !Quorate(without(voters, p.Name))) {
				continue
			}
			return Step{Remove: p.Name, Why: why}
		}
	}
	return Step{}
}

func without(voters []Peer, name string) []Peer {
	return remaining(voters, map[string]string{name: ""})
}

func quorum(voters int) int { return voters/2 + 1 }

// Quorate says whether a majority of the voters answers.
func Quorate(voters []Peer) bool {
	return len(voters) > 0 && alive(voters, "") >= quorum(len(voters))
}

// SurvivesCenter says whether, whatever center is lost, a majority of the voters
// still answers.
func SurvivesCenter(voters []Peer) bool {
	return len(voters) > 0 && Quorate(voters) && len(fatalCenters(voters)) == 0
}

// fatalCenters are those whose loss takes the majority.
func fatalCenters(voters []Peer) []string {
	var fatal []string
	for _, v := range voters {
		if alive(voters, v.Center) < quorum(len(voters)) && !slices.Contains(fatal, v.Center) {
			fatal = append(fatal, v.Center)
		}
	}
	return fatal
}

// alive counts the voters that answer, those of one center left out.
func alive(voters []Peer, leftOut string) int {
	n := 0
	for _, v := range voters {
		if v.Alive && (leftOut == "" || v.Center != leftOut) {
			n++
		}
	}
	return n
}
