// Package identity gives every process of a hub its name: the hub's CA, the
// certificates of members, agents, guards and the administrator, the join
// tokens of clusters, and the TLS configurations made of them.
//
// The CA is made once, by the bootstrap member, together with the key that
// signs service account tokens and the key that signs evidence: the Bundle.
// Other members fetch the bundle over the protocol tripod-join/1 (see
// DESIGN.md). Every member issues its own certificate from the CA, so a member
// renews its certificate without asking anyone.
package identity
