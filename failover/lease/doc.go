// Package lease is the arithmetic of cluster leases: safety.md sections 2, 3
// and 4 and nothing else. It is pure. An instant is a time.Duration since an
// arbitrary origin on the monotonic clock of the one process that took it;
// instants of two processes are never compared.
//
// A cluster may hold roles only while it holds a lease. Two sides count the
// same lease on two clocks:
//
//   - the agent (Holder) counts TTL from the moment it *asked*;
//   - a hub member (Book) counts TTL, stretched for the drift of both clocks,
//     from the moment it *applied* the renewal.
//
// The agent asked before the renewal was proposed and nobody applies an entry
// before it is proposed, so whenever the Book says that a lease is surely over,
// the agent's deadline has passed in real time.
package lease
