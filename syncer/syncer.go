// Package syncer moves objects from a Source through a Transform into a Sink
// and remembers, as a Checkpoint, how far it came.
//
// The package is pure: it knows no clock, network or log. A Journal holds the
// source side's objects once for any number of readers; each reader is a
// Cursor, so a slow reader costs no memory and is never dropped.
package syncer

import (
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Resource is one kind of object that a source serves.
type Resource struct {
	schema.GroupVersionResource
	Kind       string
	Singular   string
	Namespaced bool
	ShortNames []string
	Categories []string
}

// GroupVersionKind is the kind of the resource's objects.
func (r Resource) GroupVersionKind() schema.GroupVersionKind {
	return r.GroupVersion().WithKind(r.Kind)
}

// Key names an object within its resource and cluster.
type Key struct {
	Namespace, Name string
}

// Object is one object as a source holds it. JSON is never modified after it
// was handed over: readers share it.
type Object struct {
	Key Key
	// Version is the source's resourceVersion; equal versions of a key are the
	// same object. Empty means unknown: then JSON is compared.
	Version string
	JSON    []byte
}

// Checkpoint is a position in a source's order of changes. It only grows.
type Checkpoint uint64

// Batch is a run of changes of one resource. A key is in Upserts or in Deletes,
// not in both.
//
// Begin..End frames a snapshot: at End the sink drops every object that it held
// before Begin and that was not upserted since. Between the two the old objects
// stay, so a reader of the sink never sees an empty resource in between.
type Batch struct {
	Begin, End bool
	Upserts    []Object
	Deletes    []Key
	Checkpoint Checkpoint
}

// Limit bounds one batch. The first object is always taken, whatever its size.
type Limit struct {
	Objects int
	Bytes   int
}

// Source yields what changed since a cursor.
type Source interface {
	// Next returns the batch after the cursor and the cursor behind it; ok is
	// false when there is nothing to say.
	Next(Cursor, Limit) (batch Batch, next Cursor, ok bool)
}

// Sink takes batches in order. An error means that the batch counts as not taken.
type Sink interface {
	Put(Batch) error
}

// Transform cuts an object down, in place, to what a sink should get; false
// leaves the object out.
type Transform func(object map[string]any) bool

// Chain applies transforms in order until one leaves the object out.
func Chain(transforms ...Transform) Transform {
	return func(object map[string]any) bool {
		for _, transform := range transforms {
			if !transform(object) {
				return false
			}
		}
		return true
	}
}

// Step moves one batch from source to sink. The returned cursor is behind the
// batch only if the sink took it: after an error the same batch is due again.
func Step(source Source, from Cursor, limit Limit, sink Sink) (next Cursor, moved bool, err error) {
	batch, next, ok := source.Next(from, limit)
	if !ok {
		return next, false, nil
	}
	if err := sink.Put(batch); err != nil {
		return from, false, err
	}
	return next, true, nil
}
