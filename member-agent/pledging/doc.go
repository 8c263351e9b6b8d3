// Package pledging is the agent's two ends of safety.md section 7. For the
// primaries of its cluster it asks the agents of other clusters for pledges when
// no hub renews the lease; for the primaries of others it gives them, and keeps
// them: it accepts no promotion while one runs. The arithmetic is failover/pledge.
package pledging
