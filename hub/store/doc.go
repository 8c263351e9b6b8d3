// Package store is the hub's replicated, linearizable, multi-version key-value
// store: etcd's own mvcc, lease and transaction packages as the state machine
// of hashicorp/raft. See DESIGN.md.
//
// New opens the member's data and joins Raft; Run serves until its context is
// done and returns when everything is closed. Package etcdapi puts the etcd v3
// API on top, package member the view of the membership.
package store
