// Package failover is the engine that moves the primary role of datasets, and
// the routes of applications with it. It is pure: one call of Turn takes a
// Snapshot of everything the hub knows and returns the Effects to carry out.
// Time, identifiers and observations come in as values.
//
// The rule that makes it survive the death of a leader at any point
// (invariant I6): whatever Turn commands is justified by state that was already
// committed when the snapshot was taken, and whatever it writes takes effect
// only in a later turn. So the writes and the commands of one turn may be
// carried out in any order, in parallel, partly, or by two leaders at once:
// each write is one object with its resource version, and each command carries
// the epoch it was justified by.
//
// The authority for a role change is one object, the Dataset: Steady → Fencing
// (epoch + 1) → Promoting → Steady. The RecoveryRun is the account of it.
package failover
