// Package apiserver is the Kubernetes API of a hub member: the upstream
// generic control plane on the hub's store, with Tripod's kinds, the kinds
// that templates are made of, and nothing that would run them.
//
// It is the only package of the hub that imports k8s.io/kubernetes.
package apiserver
