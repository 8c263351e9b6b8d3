package validate

import (
	"slices"
	"testing"
	"time"

	"tripod.dev/tripod/test/robustness/model"
)

// good is a history of a correct store: two puts, one of them on a lease that runs
// out, a deletion without an answer, a transaction and reads.
func good() *model.History {
	item := func(key, value string, created, modified, version, lease int64) model.Item {
		return model.Item{Key: key, Value: value, Created: created, Modified: modified, Version: version, Lease: lease}
	}
	event := func(i model.Item) model.Event { return model.Event{Item: i} }
	gone := func(key string, revision int64) model.Event {
		return model.Event{Item: model.Item{Key: key, Modified: revision}, Deleted: true}
	}
	one, two := item("r/1", "v1", 2, 2, 1, 0), item("l/1", "v2", 3, 3, 1, 7)
	three := item("r/2", "v3", 5, 5, 1, 0)
	response := func(at time.Duration, revision int64, events ...model.Event) model.WatchResponse {
		return model.WatchResponse{At: at * time.Second, Revision: revision, Events: events}
	}
	everything := []model.WatchResponse{
		response(1, 2, event(one)), response(2, 3, event(two)), response(4, 4, gone("l/1", 4)),
		response(5, 5, event(three)), response(6, 6, gone("r/1", 6)),
	}
	s := time.Second
	return &model.History{
		Operations: []model.Operation{
			{Client: 1, Request: model.Request{Kind: model.Put, Key: "r/1", Value: "v1"}, Call: 0, Return: s, Response: &model.Response{Revision: 2}},
			{Client: 1, Request: model.Request{Kind: model.Put, Key: "l/1", Value: "v2", Lease: 7}, Call: s, Return: 2 * s, Response: &model.Response{Revision: 3}},
			{Client: 2, Request: model.Request{Kind: model.Get, Key: "r/1"}, Call: 2*s + 1, Return: 3 * s, Response: &model.Response{Revision: 3, Items: []model.Item{one}}},
			{Client: 2, Request: model.Request{Kind: model.Txn, Key: "r/2", Value: "v3", Also: "r/none"}, Call: 4 * s, Return: 5 * s, Response: &model.Response{Revision: 5, Succeeded: true}},
			{Client: 3, Request: model.Request{Kind: model.Delete, Key: "r/1"}, Call: 5 * s, Return: 7 * s},
			{Client: 4, Request: model.Request{Kind: model.DeleteRange, Key: "r/"}, Call: 5 * s, Return: 7 * s},
			{Client: 3, Request: model.Request{Kind: model.Put, Key: "r/3", Value: "never done"}, Call: 7 * s, Return: 8 * s},
		},
		PastReads:   []model.PastRead{{Prefix: "r/", Revision: 4, Call: 6 * s, Return: 7 * s, Items: []model.Item{one}}},
		Compactions: []model.Compaction{{Revision: 3, Call: 6 * s, Return: 7 * s, Done: true}},
		Watches: []model.Watch{
			{Member: "m0", From: 1, Responses: everything},
			{Member: "m1", Prefix: "r/", From: 3, Responses: []model.WatchResponse{everything[3], {At: 6 * s, Revision: 5, Progress: true}, everything[4]}},
		},
		Leases:  []model.Lease{{ID: 7, TTL: 2 * s, Granted: s, Renewals: []model.Renewal{{Call: 1500 * time.Millisecond, Return: 2 * s, Alive: true}}}},
		Members: []model.Final{{Member: "m0", Revision: 6, Hash: 1}, {Member: "m1", Revision: 6, Hash: 1}},
	}
}

// TestEveryRuleCanBeBroken breaks a good history in one place for every rule.
func TestEveryRuleCanBeBroken(t *testing.T) {
	tests := map[string]struct {
		spoil func(*model.History)
		want  Rule
	}{
		"a correct store breaks none":             {func(*model.History) {}, ""},
		"a read misses what was acknowledged":     {func(h *model.History) { h.Operations[2].Response.Items = nil }, Linearizable},
		"a read is answered by an older state":    {func(h *model.History) { h.Operations[2].Response.Revision = 2 }, Linearizable},
		"an acknowledged write is at no revision": {func(h *model.History) { h.Operations[0].Response.Revision = 9 }, Acknowledged},
		"two writes are at the same revision":     {func(h *model.History) { h.Operations[1].Response.Revision = 2 }, Acknowledged},
		"a value that nobody wrote appears":       {func(h *model.History) { h.Operations[0].Value = "other" }, Asked},
		"a deletion that nobody asked for":        {func(h *model.History) { h.Operations[4].Key, h.Operations[5].Key = "r/9", "l/" }, Asked},
		"watches tell different values": {func(h *model.History) {
			w := h.Watches[0]
			other := slices.Clone(w.Responses[0].Events)
			other[0].Item.Value = "other"
			h.Watches = append(h.Watches, model.Watch{From: 1, Responses: []model.WatchResponse{{Revision: 2, Events: other}}})
		}, WatchesAgree},
		"a watch tells a revision again": {func(h *model.History) {
			w := &h.Watches[1]
			w.Responses = append(w.Responses, w.Responses[2])
		}, WatchOrder},
		"a watch leaves out a revision":         {func(h *model.History) { h.Watches[1].Responses = h.Watches[1].Responses[2:] }, WatchComplete},
		"a watch begins too early":              {func(h *model.History) { h.Watches[1].From = 6 }, WatchStart},
		"progress is notified too early":        {func(h *model.History) { h.Watches[1].Responses[1].Revision = 6 }, WatchProgress},
		"a watch is refused for no reason":      {func(h *model.History) { h.Watches[1].Responses[2] = model.WatchResponse{At: 1, Compacted: 6} }, WatchCompacted},
		"the past is not what it was":           {func(h *model.History) { h.PastReads[0].Items = nil }, PastReads},
		"a revision is forgotten for no reason": {func(h *model.History) { h.PastReads[0].Compacted = true }, PastReads},
		"a lease ends early":                    {func(h *model.History) { h.Leases[0].TTL = 10 * time.Second }, LeaseKept},
		"a lease that is over is renewed":       {func(h *model.History) { h.Leases[0].Renewals[0].Call = 5 * time.Second }, LeaseEnded},
		"members differ at the end":             {func(h *model.History) { h.Members[1].Hash = 2 }, MembersEqual},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			h := good()
			test.spoil(h)
			found := Check(h, time.Minute)
			if test.want == "" && len(found) == 0 {
				return
			}
			if !slices.ContainsFunc(found, func(v Violation) bool { return v.Rule == test.want }) {
				t.Fatalf("found %v, want %q", found, test.want)
			}
		})
	}
}
