package view

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"tripod.dev/tripod/syncer"
)

// ClusterName is the annotation that names an object's cluster, and the label
// that selectors may use for it although no object carries it.
const ClusterName = "tripod.dev/cluster"

// versionDigits is the width of every resourceVersion of a view, so that one
// can be written over another in place.
const versionDigits = 19

// object is one object of one cluster. It never changes after it was indexed.
type object struct {
	cluster string
	key     syncer.Key
	labels  map[string]string
	// selectable are the kind's own field labels; see fields.go.
	selectable fields.Set
	// source tells one state of the object from another: the member's uid and
	// resourceVersion, and the length of what it sent.
	source string
	// version is the view's.
	version uint64
	// json is the object with its annotation; the version is at versionAt.
	json      []byte
	versionAt int
}

// parse reads what an agent sent. The version is stamped later.
func parse(cluster string, resource syncer.Resource, raw []byte) (*object, error) {
	var top map[string]json.RawMessage
	if err := json.Unmarshal(raw, &top); err != nil {
		return nil, fmt.Errorf("decode an object of %s: %w", resource.Resource, err)
	}
	var metadata map[string]json.RawMessage
	if err := json.Unmarshal(top["metadata"], &metadata); err != nil {
		return nil, fmt.Errorf("decode the metadata of an object of %s: %w", resource.Resource, err)
	}
	o := &object{cluster: cluster}
	var annotations map[string]string
	var uid, version string
	for field, into := range map[string]any{
		"name": &o.key.Name, "namespace": &o.key.Namespace, "labels": &o.labels,
		"annotations": &annotations, "uid": &uid, "resourceVersion": &version,
	} {
		if value, ok := metadata[field]; ok {
			if err := json.Unmarshal(value, into); err != nil {
				return nil, fmt.Errorf("decode metadata.%s of an object of %s: %w", field, resource.Resource, err)
			}
		}
	}
	if o.key.Name == "" {
		return nil, fmt.Errorf("an object of %s has no name", resource.Resource)
	}
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[ClusterName] = cluster
	o.source = uid + "/" + version + "/" + strconv.Itoa(len(raw))
	o.selectable = selectableOf(resource, top)
	return o, o.encode(resource, top, metadata, annotations)
}

// encode writes the object with its version first, at a place it can be found.
func (o *object) encode(resource syncer.Resource, top, metadata map[string]json.RawMessage, annotations map[string]string) error {
	encoded, err := json.Marshal(annotations)
	if err != nil {
		return fmt.Errorf("encode annotations of %s %s/%s: %w", resource.Resource, o.key.Namespace, o.key.Name, err)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"kind":%q,"apiVersion":%q,"metadata":{"resourceVersion":"`, resource.Kind, resource.GroupVersion().String())
	o.versionAt = b.Len()
	fmt.Fprintf(&b, `%0*d","annotations":%s`, versionDigits, 0, encoded)
	for field, value := range metadata {
		if field != "resourceVersion" && field != "annotations" {
			fmt.Fprintf(&b, `,%q:%s`, field, value)
		}
	}
	b.WriteByte('}')
	for field, value := range top {
		if field != "kind" && field != "apiVersion" && field != "metadata" {
			name, err := json.Marshal(field)
			if err != nil {
				return fmt.Errorf("encode a field name of %s: %w", resource.Resource, err)
			}
			fmt.Fprintf(&b, `,%s:%s`, name, value)
		}
	}
	b.WriteByte('}')
	o.json = bytes.Clone(b.Bytes())
	return nil
}

// stamp sets the version of an object that nobody else has seen yet.
func (o *object) stamp(version uint64) {
	o.version = version
	copy(o.json[o.versionAt:], fmt.Sprintf("%0*d", versionDigits, version))
}

// at is a copy of the object with another version: what a DELETED event shows.
func (o *object) at(version uint64) *object {
	c := *o
	c.json = bytes.Clone(o.json)
	c.stamp(version)
	return &c
}

// less orders by namespace, then name.
func less(a, b *object) bool {
	if a.key.Namespace != b.key.Namespace {
		return a.key.Namespace < b.key.Namespace
	}
	return a.key.Name < b.key.Name
}

// objectLabels are the object's labels and its cluster's name.
type objectLabels struct{ *object }

var _ labels.Labels = objectLabels{}

// Has implements labels.Labels.
func (l objectLabels) Has(label string) bool {
	_, ok := l.Lookup(label)
	return ok
}

// Get implements labels.Labels.
func (l objectLabels) Get(label string) string {
	value, _ := l.Lookup(label)
	return value
}

// Lookup implements labels.Labels.
func (l objectLabels) Lookup(label string) (string, bool) {
	if label == ClusterName {
		return l.cluster, true
	}
	value, ok := l.labels[label]
	return value, ok
}

// objectFields are the values of the field labels that the object can be selected by.
type objectFields struct{ *object }

var _ fields.Fields = objectFields{}

// Has implements fields.Fields.
func (f objectFields) Has(field string) bool {
	switch field {
	case "metadata.name", "metadata.namespace", "metadata.cluster":
		return true
	}
	_, ok := f.selectable[field]
	return ok
}

// Get implements fields.Fields.
func (f objectFields) Get(field string) string {
	switch field {
	case "metadata.name":
		return f.key.Name
	case "metadata.namespace":
		return f.key.Namespace
	case "metadata.cluster":
		return f.cluster
	}
	return f.selectable[field]
}
