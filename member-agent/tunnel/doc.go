// Package tunnel lets the hub reach this cluster's API server without any
// connection into the cluster: the agent dials every hub member, the member
// opens streams through that connection, and each stream is an HTTP/1.1
// connection to a proxy that forwards to the API server.
//
// The proxy authenticates as the agent's service account. Who the request is for
// arrives in Impersonate-* headers, which the gateway has set and the API server
// judges; they pass through as they are.
package tunnel
