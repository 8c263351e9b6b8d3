// Package v1alpha1 holds the kinds of the group tripod.dev, as a user writes
// them. It imports nothing of Tripod, so that every other package may import it.
//
// Spec is what is wanted, status is what was observed or decided. A field
// comment is the contract that `kubectl explain` shows.
//
// +kubebuilder:object:generate=true
// +groupName=tripod.dev
package v1alpha1
