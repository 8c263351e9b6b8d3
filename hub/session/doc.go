// Package session is the server end of the agents' sessions: one gRPC stream
// and one tunnel from every agent replica, over one TLS port that is split by
// ALPN. It carries heartbeats to the leader and grants back, desired state and
// directives out, view deltas and results in, and hands out connections into
// clusters. It decides nothing: who is leased and what is desired come from the
// interfaces of Config.
package session
