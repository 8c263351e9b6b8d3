// Package model says what clients did and saw, and what a correct store would
// have answered: the whole key-value state with its revisions, as etcd's API
// defines it.
package model
