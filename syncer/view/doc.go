// Package view says what of a member cluster the federated view holds: which
// resources are synced, how their objects are cut down, and how batches travel
// in tripod.agent.v1.
package view
