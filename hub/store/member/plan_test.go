package member

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// votes makes voters that answer: name:center.
func votes(list ...string) []Peer {
	var out []Peer
	for _, text := range list {
		name, center, _ := strings.Cut(text, ":")
		out = append(out, Peer{Name: name, Center: center, Voter: true, Alive: true, Steady: time.Hour})
	}
	return out
}

func newcomer(name, center string, change ...func(*Peer)) Peer {
	p := Peer{Name: name, Center: center, Alive: true, Steady: time.Hour}
	for _, c := range change {
		c(&p)
	}
	return p
}

func silent(peers []Peer, names ...string) []Peer {
	for i := range peers {
		for _, name := range names {
			if peers[i].Name == name {
				peers[i].Alive, peers[i].Silent, peers[i].Steady = false, time.Hour, 0
			}
		}
	}
	return peers
}

func replacing(old string) func(*Peer) { return func(p *Peer) { p.Replaces = old } }

func TestNext(t *testing.T) {
	three := func() []Peer { return votes("a:1", "b:2", "c:3") }
	tests := map[string]struct {
		peers   []Peer
		policy  Policy
		promote string
		remove  string
		waits   map[string]string // parts of the reasons
	}{
		"three voters in three centers need nothing": {peers: three()},
		"a fourth voter waits, because four survive no more than three": {
			peers: append(three(), newcomer("d", "1")),
			waits: map[string]string{"d": "survive no more losses"},
		},
		"two newcomers in two centers are promoted together, one after the other": {
			peers: append(three(), newcomer("d", "1"), newcomer("e", "2")), promote: "d",
		},
		"a change that stopped half-way is completed": {
			peers: append(votes("a:1", "b:2", "c:3", "d:1"), newcomer("e", "2")), promote: "e",
		},
		"two newcomers in one center would make it fatal to lose": {
			peers: append(three(), newcomer("d", "1"), newcomer("e", "1")),
			waits: map[string]string{"d": "survive no more", "e": "survive no more"},
		},
		"a newcomer that lags waits": {
			peers: append(three(), newcomer("d", "1", func(p *Peer) { p.Behind = 10_000 }), newcomer("e", "2")),
			waits: map[string]string{"d": "10000 entries", "e": "survive no more"},
		},
		"a newcomer that has just caught up waits": {
			peers: append(three(), newcomer("d", "1", replacing("a"), func(p *Peer) { p.Steady = time.Second })),
			waits: map[string]string{"d": "must stay so"},
		},
		"a newcomer that is down waits": {
			peers: append(three(), newcomer("d", "1", replacing("a"), func(p *Peer) { p.Alive = false })),
			waits: map[string]string{"d": "does not answer"},
		},
		"an old program never votes": {
			peers: append(three(), newcomer("d", "1", replacing("a"), func(p *Peer) { p.Unable = "upgrade d" })),
			waits: map[string]string{"d": "upgrade d"},
		},
		"a replacement is promoted before the old one goes": {
			peers: append(three(), newcomer("d", "1", replacing("a"))), promote: "d",
		},
		"the old one goes when its replacement votes": {
			peers: append(three(), func() Peer { p := votes("d:1")[0]; p.Replaces = "a"; return p }()), remove: "a",
		},
		"the old one stays while its replacement is silent": {
			peers: silent(append(three(), func() Peer { p := votes("d:1")[0]; p.Replaces = "a"; return p }()), "d"),
		},
		"a dead member is replaced too": {
			peers: append(silent(three(), "a"), newcomer("d", "1", replacing("a"))), promote: "d",
		},
		"a dead member stays, unless told otherwise": {peers: silent(votes("a:1", "b:2", "c:3", "d:1", "e:2"), "d")},
		"of three voters a dead one is not removed without a replacement": {
			peers: silent(three(), "a"), policy: Policy{RemoveDeadAfter: time.Minute},
		},
		"a dead voter goes when a newcomer can take its place": {
			peers: append(silent(three(), "a"), newcomer("d", "1")), policy: Policy{RemoveDeadAfter: time.Minute}, promote: "d",
		},
		"a dead voter goes after the newcomer votes": {
			peers: silent(votes("a:1", "b:2", "c:3", "d:1"), "a"), policy: Policy{RemoveDeadAfter: time.Minute}, remove: "a",
		},
		"a dead non-voter goes": {
			peers: append(three(), newcomer("d", "1", func(p *Peer) { p.Alive, p.Silent = false, time.Hour })), policy: Policy{RemoveDeadAfter: time.Minute},
			remove: "d", waits: map[string]string{"d": "does not answer"},
		},
		"dead members of two centers are never removed": {
			peers: silent(votes("a:1", "b:2", "c:3", "d:1", "e:2", "f:3"), "d", "e"), policy: Policy{RemoveDeadAfter: time.Minute},
		},
		"a hub that was recovered to one member grows to three at once": {
			peers: append(votes("a:1"), newcomer("b", "2"), newcomer("c", "3")), promote: "b",
		},
		"a hub of one member does not become one of two": {
			peers: append(votes("a:1"), newcomer("b", "2")),
			waits: map[string]string{"b": "survive no more"},
		},
		"without a majority nothing is changed": {
			peers:  append(silent(three(), "a", "b"), newcomer("d", "1", replacing("a"))),
			policy: Policy{RemoveDeadAfter: time.Minute},
			waits:  map[string]string{"d": "a majority of the voters does not answer"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			step, waiting := Next(test.peers, test.policy)
			if step.Promote != test.promote || step.Remove != test.remove {
				t.Errorf("step %+v, want to promote %q and remove %q; waiting %v", step, test.promote, test.remove, waiting)
			}
			for name, part := range test.waits {
				if !strings.Contains(waiting[name], part) {
					t.Errorf("%s waits because %q, want %q in it", name, waiting[name], part)
				}
			}
			if len(waiting) != len(test.waits) {
				t.Errorf("waiting: %v", cmp.Diff(test.waits, waiting))
			}
		})
	}
}

func TestChecksRefuseWithARemedy(t *testing.T) {
	three := func() []Peer { return votes("a:1", "b:2", "c:3") }
	tests := map[string]struct {
		err  error
		want string // empty: allowed
	}{
		"a name that is taken":                        {CheckAdd(three(), "a", "1", ""), "another name"},
		"a new member":                                {CheckAdd(three(), "d", "1", ""), ""},
		"a replacement in the same center":            {CheckAdd(three(), "d", "1", "a"), ""},
		"a replacement in another center":             {CheckAdd(three(), "d", "2", "a"), "put the new member into center 1"},
		"a replacement of nobody":                     {CheckAdd(three(), "d", "1", "x"), "not in the hub"},
		"a replacement while another center is short": {CheckAdd(silent(three(), "b"), "d", "1", "a"), "two centers"},
		"a replacement of the one that is down":       {CheckAdd(silent(three(), "a"), "d", "1", "a"), ""},
		"removing one of three":                       {CheckRemove(three(), "a", false), "replace it instead"},
		"removing one of three by force":              {CheckRemove(three(), "a", true), ""},
		"removing the one that is down":               {CheckRemove(silent(three(), "a"), "a", false), ""},
		"removing one while another is down":          {CheckRemove(silent(three(), "a"), "b", true), "needs 2"},
		"removing one of five while another center is short": {
			CheckRemove(silent(votes("a:1", "b:2", "c:3", "d:1", "e:2"), "d"), "e", false), "two centers",
		},
		"removing a non-voter":    {CheckRemove(append(three(), newcomer("d", "1")), "d", false), ""},
		"removing the last voter": {CheckRemove(votes("a:1"), "a", true), "last voter"},
		"removing a stranger":     {CheckRemove(three(), "x", false), "not in the hub"},
		"promoting one that lags": {
			CheckPromote(append(three(), newcomer("d", "1", func(p *Peer) { p.Behind = 9999 })), "d", Policy{}), "9999 entries",
		},
		"promoting one that makes a center fatal": {CheckPromote(append(three(), newcomer("d", "1")), "d", Policy{}), "loss of center 1"},
		"promoting the second of a hub of one":    {CheckPromote(append(votes("a:1"), newcomer("b", "2")), "b", Policy{}), ""},
		"promoting a voter":                       {CheckPromote(three(), "a", Policy{}), "votes already"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			switch {
			case test.want == "" && test.err != nil:
				t.Errorf("refused: %v", test.err)
			case test.want != "" && (test.err == nil || !strings.Contains(test.err.Error(), test.want)):
				t.Errorf("got %v, want an error with %q", test.err, test.want)
			}
		})
	}
}

func TestPreferred(t *testing.T) {
	peers := func() []Peer { return votes("a:1", "b:2", "c:3") }
	tests := map[string]struct {
		peers          []Peer
		leader, center string
		want           string
	}{
		"no preference moves nothing":             {peers(), "a", "", ""},
		"a leader in the center stays":            {peers(), "b", "2", ""},
		"a leader elsewhere hands over":           {peers(), "a", "2", "b"},
		"a member that is down is not preferred":  {silent(peers(), "b"), "a", "2", ""},
		"one that has just come back must wait":   {append(votes("a:1"), Peer{Name: "b", Center: "2", Voter: true, Alive: true, Steady: time.Second}), "a", "2", ""},
		"a non-voter does not lead":               {append(votes("a:1"), newcomer("b", "2")), "a", "2", ""},
		"of two the one that is further is taken": {append(votes("a:1", "c:2"), Peer{Name: "b", Center: "2", Voter: true, Alive: true, Steady: time.Hour, Behind: 7}), "a", "2", "c"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := Preferred(test.peers, test.leader, test.center, time.Minute); got != test.want {
				t.Errorf("Preferred() = %q, want %q", got, test.want)
			}
		})
	}
}
