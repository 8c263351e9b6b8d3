package apiserver

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// record is a custom resource as it is stored, of which nothing is understood but where
// each field begins and ends. It goes back as it came: what a newer member has put into it
// is kept.
type record struct {
	// ObjectMeta has the resource version alone, which is not stored.
	metav1.ObjectMeta
	fields map[string]json.RawMessage
}

var _ runtime.Object = (*record)(nil)

// GetObjectKind implements runtime.Object.
func (*record) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }

// DeepCopyObject implements runtime.Object. The fields are never changed in place.
func (r *record) DeepCopyObject() runtime.Object {
	return &record{ObjectMeta: *r.ObjectMeta.DeepCopy(), fields: maps.Clone(r.fields)}
}

// recordCodec is JSON, as custom resources are stored.
type recordCodec struct{}

var _ runtime.Codec = recordCodec{}

// Identifier implements runtime.Encoder.
func (recordCodec) Identifier() runtime.Identifier { return "tripod-record" }

// Encode implements runtime.Encoder.
func (recordCodec) Encode(obj runtime.Object, w io.Writer) error {
	r, ok := obj.(*record)
	if !ok {
		return fmt.Errorf("%T is no record", obj)
	}
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false) // what is stored is escaped, or was not to be
	if err := encoder.Encode(r.fields); err != nil {
		return fmt.Errorf("encode a stored object: %w", err)
	}
	return nil
}

// Decode implements runtime.Decoder.
func (recordCodec) Decode(data []byte, _ *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	r, ok := into.(*record)
	if !ok {
		return nil, nil, fmt.Errorf("%T is no record", into)
	}
	r.fields = nil
	if err := json.Unmarshal(data, &r.fields); err != nil {
		return nil, nil, fmt.Errorf("decode a stored object: %w", err)
	}
	if r.fields == nil {
		return nil, nil, fmt.Errorf("a stored object is %.20q", data)
	}
	return r, &schema.GroupVersionKind{}, nil
}
