package fault

import (
	"cmp"
	"maps"
	"slices"
)

// Direction is one way of a path between two places of a lab.
type Direction struct {
	From string `json:"from"`
	To   string `json:"to"`
}

func (d Direction) String() string { return d.From + " -> " + d.To }

// Cuts is the set of directions in which packets are lost. The zero value is a
// healthy network.
type Cuts map[Direction]bool

// With returns the cuts after f, in a lab of the given centers. Faults that are not
// about the network change nothing.
func (c Cuts) With(f Fault, centers []string) Cuts {
	after := maps.Clone(c)
	if after == nil {
		after = Cuts{}
	}
	switch f.Kind {
	case Heal:
		clear(after)
	case Cut:
		after[Direction{f.Center, f.Peer}] = true
		if !f.OneWay {
			after[Direction{f.Peer, f.Center}] = true
		}
	case Isolate:
		for _, other := range append(slices.Clone(centers), Outside) {
			if other != f.Center {
				after[Direction{f.Center, other}] = true
				after[Direction{other, f.Center}] = true
			}
		}
	}
	return after
}

// Sorted lists the cuts in a stable order.
func (c Cuts) Sorted() []Direction {
	return slices.SortedFunc(maps.Keys(c), func(a, b Direction) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
	})
}
