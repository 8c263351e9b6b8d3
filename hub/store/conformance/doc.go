// Package conformance holds no code: its tests run Kubernetes' own storage suite
// (k8s.io/apiserver/pkg/storage/testing) through Kubernetes' etcd3 store and
// client against the hub's store.
package conformance
