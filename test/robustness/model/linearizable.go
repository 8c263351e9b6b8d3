package model

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/anishathalye/porcupine"
)

// Outcome is what is known of the effect of an operation.
type Outcome struct {
	// Response is what its client was told; nil if nothing.
	Response *Response
	// Revisions are those at which an operation without a response may have had its
	// effect.
	Revisions []int64
	// Perhaps says that it need not have had any.
	Perhaps bool
}

// step is the state after r, if r can take effect in state with that outcome.
func (o Outcome) step(state State, r Request) (bool, State) {
	after, answer := state.Apply(r)
	switch {
	case o.Response != nil:
		return o.Response.Equal(answer), after
	case slices.Contains(o.Revisions, after.Revision):
		return true, after
	}
	return o.Perhaps, state
}

// Porcupine is the model for the checker: its inputs are Requests, its outputs
// Outcomes. Nothing is partitioned by key, because revisions count all keys.
var Porcupine = porcupine.Model{
	Init: func() any { return Empty() },
	Step: func(state, input, output any) (bool, any) {
		return output.(Outcome).step(state.(State), input.(Request))
	},
	Equal: func(a, b any) bool { return a.(State).Equal(b.(State)) },
	DescribeOperation: func(input, output any) string {
		return describe(input.(Request)) + " -> " + describeOutcome(output.(Outcome))
	},
	DescribeState: func(state any) string {
		s := state.(State)
		return fmt.Sprintf("revision %d, %d keys", s.Revision, len(s.items))
	},
}

func describe(r Request) string {
	switch r.Kind {
	case Put:
		return fmt.Sprintf("put %s=%s", r.Key, r.Value)
	case Txn:
		return fmt.Sprintf("txn %s@%d: =%s, delete %s", r.Key, r.Expect, r.Value, r.Also)
	case Expire:
		return fmt.Sprintf("lease %x takes %v", r.Lease, r.Keys)
	}
	return fmt.Sprintf("%s %s", r.Kind, r.Key)
}

func describeOutcome(o Outcome) string {
	if o.Response == nil {
		return fmt.Sprintf("no answer, perhaps at %v", o.Revisions)
	}
	var items string
	for _, item := range o.Response.Items {
		items += fmt.Sprintf(" %s=%s@%d", item.Key, item.Value, item.Modified)
	}
	return fmt.Sprintf("revision %d, succeeded %t, deleted %d%s", o.Response.Revision, o.Response.Succeeded, o.Response.Deleted, items)
}

// SortEvents puts the events of one revision in the order of their keys.
func SortEvents(events []Event) {
	slices.SortFunc(events, func(a, b Event) int { return cmp.Compare(a.Item.Key, b.Item.Key) })
}
