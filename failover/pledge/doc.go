// Package pledge is the arithmetic of safety.md section 7 and nothing else: how
// the primary of a dataset keeps its role while no hub renews its lease. Like
// failover/lease it is pure, and an instant is a time.Duration since an
// arbitrary origin on the monotonic clock of the one process that took it.
//
// The primary's agent (Collector) asks every pledger of the dataset: do you
// promise to accept no promotion for a TTL? It counts from when it *asked*. A
// pledger (Book) counts from when it *promised*, which is later, and stretched
// for the drift of both clocks (decision 0009). So whenever a pledger may accept
// a promotion, every pledge that it gave is over at the primary, in real time.
//
// The primary needs fresh pledges of *all* its pledgers. So whoever is one of
// them, or has heard from one of them that it has seen the newer epoch and that
// its last pledge is over, knows that the primary has stopped.
package pledge
