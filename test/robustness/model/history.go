package model

import "time"

// Event is a change of one key, as a watch tells it.
type Event struct {
	Item Item
	// Deleted: only Item.Key and Item.Modified mean something.
	Deleted bool `json:",omitempty"`
}

// Operation is a request and what came of it. Times are since the start of the
// history, on the suite's monotonic clock.
type Operation struct {
	// Client did one operation at a time. Member is the one that it spoke to.
	Client int
	Member string
	Request
	Call, Return time.Duration
	// Response is nil if there was none: a write may have been done, or may be yet.
	Response *Response `json:",omitempty"`
	Error    string    `json:",omitempty"`
}

// PastRead is a linearizable read of the state at an earlier revision.
type PastRead struct {
	Member   string
	Prefix   string
	Revision int64
	Call     time.Duration
	Return   time.Duration
	// Items mean nothing if Compacted.
	Items     []Item
	Compacted bool `json:",omitempty"`
}

// Compaction is a request to forget revisions before Revision.
type Compaction struct {
	Revision     int64
	Call, Return time.Duration
	// Done: the store said so. Otherwise it may have been done.
	Done bool
}

// Watch is one watch from its creation to its end. A watch that is resumed is
// another Watch.
type Watch struct {
	Member string
	Prefix string
	// From is the revision it was asked to begin at; 0: after the present one.
	From      int64
	Responses []WatchResponse
	// Error is why it ended, if not by its client.
	Error string `json:",omitempty"`
}

// WatchResponse is one message of a watch.
type WatchResponse struct {
	At time.Duration
	// Revision that the header tells.
	Revision int64
	Created  bool    `json:",omitempty"`
	Progress bool    `json:",omitempty"`
	Events   []Event `json:",omitempty"`
	// Compacted is set when the watch ends because From is forgotten: what is
	// before Compacted cannot be watched.
	Compacted int64 `json:",omitempty"`
}

// Lease is a lease, and what was done to keep or end it.
type Lease struct {
	ID  int64
	TTL time.Duration
	// Granted is when it was asked for.
	Granted  time.Duration
	Renewals []Renewal
	// Revoked is when it was asked to be ended; 0: never.
	Revoked time.Duration `json:",omitempty"`
}

// Renewal is an answer to a request to keep a lease.
type Renewal struct {
	Call, Return time.Duration
	// Alive is false if the store said that the lease is over.
	Alive bool
}

// History is everything that was done to one fleet and seen of it.
type History struct {
	Operations  []Operation
	PastReads   []PastRead
	Compactions []Compaction
	Watches     []Watch
	Leases      []Lease
	// Members are what each member said at the end, when all were well.
	Members []Final
}

// Final is a member's state at the end.
type Final struct {
	Member string
	// Hash of the whole state at Revision, kept since Compacted.
	Revision, Compacted int64
	Hash                uint32
}
