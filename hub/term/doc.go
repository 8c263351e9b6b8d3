// Package term is the work that only the hub's leader does: it answers
// heartbeats with leases (Leaser), knows who hears whom (Vantages) and what the
// agents observe (Observations), keeps the status of clusters (ClusterStatus),
// and starts and stops, with each Raft term, everything else that must run
// exactly once (Runner).
//
// Leases and Committed are on every member: a new leader answers from what the
// member has counted and read all along.
package term
