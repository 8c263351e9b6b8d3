// Package etcdapi serves the etcd v3 API on a store: to the member's own API
// server, to the other members (who also forward to the leader over the same
// listener) and to backup tools such as etcdctl.
//
// Any member serves everything. Watches and serializable reads are answered
// from the member's own state; writes and the confirmation of linearizable reads
// go to the leader.
package etcdapi
