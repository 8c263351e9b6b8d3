package model

import (
	"slices"
	"strings"
)

// Kind is what a request does.
type Kind string

// The kinds of requests.
const (
	Put         Kind = "put"
	Get         Kind = "get"
	Range       Kind = "range"
	Delete      Kind = "delete"
	DeleteRange Kind = "deleteRange"
	Txn         Kind = "txn"
	// Expire is not asked for by a client: the store ends a lease.
	Expire Kind = "expire"
)

// Writes says whether requests of this kind may make a revision.
func (k Kind) Writes() bool { return k != Get && k != Range }

// Request is one request to the store.
type Request struct {
	Kind Kind
	// Key is the key, or for Range and DeleteRange the prefix.
	Key string
	// Value is written by Put and Txn; no two requests write the same.
	Value string `json:",omitempty"`
	Lease int64  `json:",omitempty"`
	// Txn: if Key was last modified at revision Expect, Key becomes Value and Also
	// is deleted; otherwise Key is read.
	Expect int64  `json:",omitempty"`
	Also   string `json:",omitempty"`
	// Keys are those that a lease took with it.
	Keys []string `json:",omitempty"`
}

// Response is what the store answered.
type Response struct {
	// Revision of the state after the request.
	Revision int64
	// Items are the keys that Get, Range or the reading branch of Txn gave.
	Items     []Item `json:",omitempty"`
	Deleted   int64  `json:",omitempty"`
	Succeeded bool   `json:",omitempty"`
}

// Equal says whether two responses tell the same.
func (r Response) Equal(other Response) bool {
	return r.Revision == other.Revision && r.Deleted == other.Deleted && r.Succeeded == other.Succeeded && slices.Equal(r.Items, other.Items)
}

// Item is a key with its value as of a revision.
type Item struct {
	Key, Value                 string
	Created, Modified, Version int64
	Lease                      int64 `json:",omitempty"`
}

// State is the content of the store. It is never altered: Apply returns the next.
type State struct {
	Revision int64
	// items are sorted by key.
	items []Item
}

// Empty is the state of a new store.
func Empty() State { return State{Revision: 1} }

// Equal says whether the states are the same.
func (s State) Equal(other State) bool {
	return s.Revision == other.Revision && slices.Equal(s.items, other.items)
}

// Apply gives the state after r, and what the store answers.
func (s State) Apply(r Request) (State, Response) {
	switch r.Kind {
	case Put:
		next := s.advance().put(r.Key, r.Value, r.Lease)
		return next, Response{Revision: next.Revision}
	case Get:
		return s, Response{Revision: s.Revision, Items: s.get(r.Key)}
	case Range:
		return s, Response{Revision: s.Revision, Items: s.within(r.Key)}
	case Delete:
		return s.remove([]string{r.Key})
	case DeleteRange:
		return s.remove(keys(s.within(r.Key)))
	case Expire:
		return s.remove(r.Keys)
	case Txn:
		return s.txn(r)
	}
	panic("no request is of kind " + r.Kind)
}

func (s State) txn(r Request) (State, Response) {
	var modified int64
	for _, item := range s.get(r.Key) {
		modified = item.Modified
	}
	if modified != r.Expect {
		return s, Response{Revision: s.Revision, Items: s.get(r.Key)}
	}
	next := s.advance().put(r.Key, r.Value, r.Lease).without(r.Also)
	return next, Response{Revision: next.Revision, Succeeded: true}
}

// Replay gives the state after the events of one revision.
func (s State) Replay(revision int64, events []Event) State {
	next := s
	next.Revision = revision
	for _, e := range events {
		if e.Deleted {
			next = next.without(e.Item.Key)
		} else {
			next = next.put(e.Item.Key, e.Item.Value, e.Item.Lease)
		}
	}
	return next
}

func (s State) advance() State { return State{Revision: s.Revision + 1, items: s.items} }

func (s State) find(key string) (int, bool) {
	return slices.BinarySearchFunc(s.items, key, func(item Item, key string) int { return strings.Compare(item.Key, key) })
}

func (s State) get(key string) []Item {
	if i, ok := s.find(key); ok {
		return s.items[i : i+1 : i+1]
	}
	return nil
}

func (s State) within(prefix string) []Item {
	from, _ := s.find(prefix)
	to := from
	for to < len(s.items) && strings.HasPrefix(s.items[to].Key, prefix) {
		to++
	}
	return s.items[from:to:to]
}

// put stores key at the revision of s.
func (s State) put(key, value string, lease int64) State {
	item := Item{Key: key, Value: value, Created: s.Revision, Modified: s.Revision, Version: 1, Lease: lease}
	i, exists := s.find(key)
	items := slices.Clone(s.items)
	if !exists {
		return State{Revision: s.Revision, items: slices.Insert(items, i, item)}
	}
	item.Created, item.Version = items[i].Created, items[i].Version+1
	items[i] = item
	return State{Revision: s.Revision, items: items}
}

// without is s without key, at the same revision.
func (s State) without(key string) State {
	i, exists := s.find(key)
	if !exists {
		return s
	}
	return State{Revision: s.Revision, items: slices.Delete(slices.Clone(s.items), i, i+1)}
}

// remove deletes keys; without any of them there is no new revision.
func (s State) remove(keys []string) (State, Response) {
	next := s
	for _, key := range keys {
		next = next.without(key)
	}
	deleted := int64(len(s.items) - len(next.items))
	if deleted > 0 {
		next = next.advance()
	}
	return next, Response{Revision: next.Revision, Deleted: deleted}
}

func keys(items []Item) []string {
	var out []string
	for _, item := range items {
		out = append(out, item.Key)
	}
	return out
}
