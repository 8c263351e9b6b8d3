package validate

import (
	"iter"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"

	"tripod.dev/tripod/test/robustness/model"
)

// never is the return of what may take effect at any time.
const never = math.MaxInt64

// linearizable looks for an order of all requests that agrees with the model and
// with time. What the history of revisions tells of a request without an answer is
// used: whether it was done, at which revision, and by when.
func (c *checker) linearizable(patience time.Duration) {
	switch porcupine.CheckOperationsTimeout(model.Porcupine, c.operations(), patience) {
	case porcupine.Illegal:
		c.violate(Linearizable, "no order of the requests agrees with what they were answered")
	case porcupine.Unknown:
		c.violate(Undecided, "no answer within %s", patience)
	}
}

// Operations is what the checker is given for h, to draw it.
func Operations(h *model.History) []porcupine.Operation {
	c := &checker{history: h, count: map[Rule]int{}}
	c.gather()
	return c.operations()
}

func (c *checker) operations() []porcupine.Operation {
	var out []porcupine.Operation
	claimed := map[int64]bool{}
	for _, o := range c.history.Operations {
		if o.Response != nil && changes(o) {
			claimed[o.Response.Revision] = true
		}
	}
	for _, o := range c.history.Operations {
		if p, ok := c.operation(o, claimed); ok {
			out = append(out, p)
		}
	}
	return append(out, c.expirations()...)
}

// operation is false for one that can be left out.
func (c *checker) operation(o model.Operation, claimed map[int64]bool) (porcupine.Operation, bool) {
	p := porcupine.Operation{ClientId: o.Client, Input: o.Request, Call: int64(o.Call), Return: int64(o.Return)}
	if o.Response != nil {
		p.Output = model.Outcome{Response: o.Response}
		return p, true
	}
	if !o.Kind.Writes() {
		return p, false
	}
	p.Return = never
	outcome := model.Outcome{}
	if o.Value != "" {
		revision, done := c.revisions.of[o.Value]
		if !done {
			return p, false
		}
		outcome.Revisions = []int64{revision}
		// Who reads after somebody was told of it must see it.
		p.Return = int64(max(c.revisions.seen[revision], o.Call+1))
	} else {
		for revision, events := range c.revisions.events {
			if !claimed[revision] && !hasPut(events) && covers(o, events) {
				outcome.Revisions = append(outcome.Revisions, revision)
			}
		}
		if outcome.Perhaps = true; len(outcome.Revisions) == 0 {
			return p, false
		}
	}
	p.Output = outcome
	return p, true
}

// expirations are what the store did by itself.
func (c *checker) expirations() []porcupine.Operation {
	byID := map[int64]model.Lease{}
	for _, l := range c.history.Leases {
		byID[l.ID] = l
	}
	var out []porcupine.Operation
	client := 1000
	for id, revision := range c.ended() {
		seen := c.revisions.seen[revision]
		l, known := byID[id]
		var call time.Duration
		if known {
			call = max(min(earliest(l, seen), seen-1), 0)
		}
		request := model.Request{Kind: model.Expire, Lease: id}
		for _, e := range c.revisions.events[revision] {
			request.Keys = append(request.Keys, e.Item.Key)
		}
		out = append(out, porcupine.Operation{
			ClientId: client, Input: request, Call: int64(call), Return: int64(seen),
			Output: model.Outcome{Revisions: []int64{revision}},
		})
		client++
	}
	return out
}

func keys[V any](m map[int64]V) iter.Seq[int64] { return maps.Keys(m) }

// Draw writes a page that shows the order of the requests as far as there is one.
func Draw(h *model.History, file string, patience time.Duration) error {
	operations := Operations(h)
	slices.SortStableFunc(operations, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	_, info := porcupine.CheckOperationsVerbose(model.Porcupine, operations, patience)
	return porcupine.VisualizePath(model.Porcupine, info, file)
}
