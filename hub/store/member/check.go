package member

import (
	"fmt"
	"slices"
	"strings"
)

// The checks below refuse what an operator asks for when it would cost the hub
// its majority or touch two centers at once. They are pure; every refusal says
// what to do instead.

// CheckAdd says whether a new member may join as a non-voter (ErrRefused).
func CheckAdd(peers []Peer, name, center, replaces string) error {
	return refused(checkAdd(peers, name, center, replaces))
}

// CheckPromote says whether a member may have its vote now (ErrRefused).
func CheckPromote(peers []Peer, name string, policy Policy) error {
	return refused(checkPromote(peers, name, policy))
}

// CheckRemove says whether a member may leave (ErrRefused). force accepts the
// loss of the tolerance for a center, never the loss of the majority.
func CheckRemove(peers []Peer, name string, force bool) error {
	return refused(checkRemove(peers, name, force))
}

func refused(err error) error {
	if err == nil {
		return nil
	}
	return refusedError{err}
}

func checkAdd(peers []Peer, name, center, replaces string) error {
	if find(peers, name) != nil {
		return fmt.Errorf("member %q is in the hub already: give the new one another name, or remove the old one first (tripodctl hub remove %s)", name, name)
	}
	for _, p := range peers {
		if p.Replaces == name {
			return fmt.Errorf("member %q is just taking the place of %q: wait until tripodctl hub status shows that it is done", p.Name, name)
		}
		if !p.Voter && replaces != "" && p.Replaces == replaces {
			return fmt.Errorf("member %q replaces %q already: wait for it, or remove it (tripodctl hub remove %s)", p.Name, replaces, p.Name)
		}
	}
	if replaces == "" {
		return nil
	}
	old := find(peers, replaces)
	if old == nil {
		return fmt.Errorf("member %q, which %q is to replace, is not in the hub: the members are %s", replaces, name, list(peers))
	}
	if other := silentElsewhere(peers, old.Center, replaces); other != nil {
		return twoCenters(replaces, old.Center, *other)
	}
	after := append(without(votersOf(peers), replaces), Peer{Name: name, Center: center, Voter: true, Alive: true})
	if old.Voter && SurvivesCenter(votersOf(peers)) && !SurvivesCenter(after) {
		return fmt.Errorf("with %q in center %s in the place of %q the loss of center %s would take the majority: put the new member into center %s",
			name, center, replaces, strings.Join(fatalCenters(after), " or "), old.Center)
	}
	return nil
}

func checkPromote(peers []Peer, name string, policy Policy) error {
	p := find(peers, name)
	switch {
	case p == nil:
		return fmt.Errorf("member %q is not in the hub: the members are %s", name, list(peers))
	case p.Voter:
		return fmt.Errorf("member %q votes already", name)
	case p.Unable != "":
		return fmt.Errorf("member %q cannot vote: %s", name, p.Unable)
	case !p.Alive:
		return fmt.Errorf("member %q does not answer: start it, and look with tripodctl hub status", name)
	case p.Behind > policy.WithDefaults().MaxBehind:
		return fmt.Errorf("member %q has %d entries to catch up: wait until tripodctl hub status shows it near the leader", name, p.Behind)
	}
	voters := votersOf(peers)
	promoted := *p
	promoted.Voter = true
	after := append(slices.Clone(voters), promoted)
	if !Quorate(after) {
		return fmt.Errorf("with %q as the %dth voter a majority of them would not answer: bring the silent ones back first", name, len(after))
	}
	if SurvivesCenter(voters) && !SurvivesCenter(after) {
		return fmt.Errorf("with %q voting the loss of center %s would take the majority: let it replace a member of its center (tripodctl hub replace), or add members in other centers and let the hub promote them together",
			name, strings.Join(fatalCenters(after), " or "))
	}
	return nil
}

func checkRemove(peers []Peer, name string, force bool) error {
	p := find(peers, name)
	if p == nil {
		return fmt.Errorf("member %q is not in the hub: the members are %s", name, list(peers))
	}
	if !p.Voter {
		return nil
	}
	voters := votersOf(peers)
	after := without(voters, name)
	switch {
	case len(after) == 0:
		return fmt.Errorf("member %q is the last voter: a hub without one is gone; to end the hub stop the process and keep a backup", name)
	case !Quorate(after):
		return fmt.Errorf("without %q the hub has %d voters, of whom %d answer, and needs %d: bring %s back, or add a member, and wait until it votes",
			name, len(after), alive(after, ""), quorum(len(after)), silentOnes(after))
	}
	if force {
		return nil
	}
	if other := silentElsewhere(peers, p.Center, name); other != nil {
		return twoCenters(name, p.Center, *other)
	}
	if SurvivesCenter(voters) && !SurvivesCenter(after) {
		return fmt.Errorf("without %q the loss of center %s would take the majority: replace it instead (tripodctl hub replace %s NEW --address ADDRESS), or repeat with --force",
			name, strings.Join(fatalCenters(after), " or "), name)
	}
	return nil
}

func twoCenters(name, center string, other Peer) error {
	return fmt.Errorf("member %q of center %s does not answer, and %q is of center %s: members of two centers are not changed at once; bring %q back or remove it first",
		other.Name, other.Center, name, center, other.Name)
}

// silentElsewhere is a voter of another center that does not answer.
func silentElsewhere(peers []Peer, center, except string) *Peer {
	for _, p := range peers {
		if p.Voter && !p.Alive && p.Center != center && p.Name != except {
			return &p
		}
	}
	return nil
}

func find(peers []Peer, name string) *Peer {
	for _, p := range peers {
		if p.Name == name {
			return &p
		}
	}
	return nil
}

func votersOf(peers []Peer) []Peer {
	var out []Peer
	for _, p := range peers {
		if p.Voter {
			out = append(out, p)
		}
	}
	return out
}

func list(peers []Peer) string {
	var names []string
	for _, p := range peers {
		names = append(names, p.Name)
	}
	return strings.Join(names, ", ")
}

func silentOnes(voters []Peer) string {
	var names []string
	for _, v := range voters {
		if !v.Alive {
			names = append(names, v.Name)
		}
	}
	return strings.Join(names, ", ")
}
