// Package view is the federated, read-only picture of all clusters' objects,
// held in memory by every hub member and served under /fleet.
//
// It is soft state, rebuilt from the agents. What a cluster that went silent
// last showed stays visible, with its age: an answer never waits for a cluster
// (invariant I8) and silence removes nothing.
package view
