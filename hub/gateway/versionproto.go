package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// protobufMagic is before every object that Kubernetes encodes in protobuf.
var protobufMagic = []byte("k8s\x00")

var errNotProtobuf = errors.New("it holds something that is not Kubernetes' protobuf")

// Field numbers of k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto, and of
// every kind: metadata is the first field, the items of a list are the second.
const (
	fieldMetadata             = 1
	fieldItems                = 2
	fieldObjectVersion        = 6 // ObjectMeta.resourceVersion
	fieldListVersion          = 2 // ListMeta.resourceVersion
	fieldListContinue         = 3 // ListMeta.continue
	fieldPreconditions        = 2 // DeleteOptions.preconditions
	fieldPreconditionsVersion = 2 // Preconditions.resourceVersion
	fieldDeleteOptions        = 2 // Eviction.deleteOptions
)

// mapProtobuf is mapJSON for an object or a list in protobuf.
func mapProtobuf(in []byte, m mapping) ([]byte, error) {
	body, ok := bytes.CutPrefix(in, protobufMagic)
	if !ok {
		return nil, errNotProtobuf
	}
	var object runtime.Unknown
	if err := object.Unmarshal(body); err != nil {
		return nil, fmt.Errorf("%w: %w", errNotProtobuf, err)
	}
	var err error
	switch kind := object.Kind; {
	case kind == "Status":
		return in, nil
	case kind == "DeleteOptions":
		object.Raw, err = mapDeleteOptions(object.Raw, m)
	case kind == "Eviction":
		object.Raw, err = mapFields(object.Raw, func(number protowire.Number, value []byte) ([]byte, error) {
			if number == fieldDeleteOptions {
				return mapDeleteOptions(value, m)
			}
			return mapObject(number, value, m)
		})
	case strings.HasSuffix(kind, "List"):
		object.Raw, err = mapFields(object.Raw, func(number protowire.Number, value []byte) ([]byte, error) { return mapList(number, value, m) })
	default:
		object.Raw, err = mapFields(object.Raw, func(number protowire.Number, value []byte) ([]byte, error) { return mapObject(number, value, m) })
	}
	if err != nil {
		return nil, err
	}
	out, err := object.Marshal()
	if err != nil {
		return nil, fmt.Errorf("encode protobuf again: %w", err)
	}
	return append(bytes.Clone(protobufMagic), out...), nil
}

// mapProtobufEvent is the same for one event of a watch, without its length.
func mapProtobufEvent(in []byte, m mapping) ([]byte, error) {
	var event metav1.WatchEvent
	if err := event.Unmarshal(in); err != nil {
		return nil, fmt.Errorf("%w: %w", errNotProtobuf, err)
	}
	var err error
	if event.Object.Raw, err = mapProtobuf(event.Object.Raw, m); err != nil {
		return nil, err
	}
	return event.Marshal()
}

func mapObject(number protowire.Number, value []byte, m mapping) ([]byte, error) {
	if number != fieldMetadata {
		return value, nil
	}
	return mapFields(value, func(number protowire.Number, value []byte) ([]byte, error) {
		if number == fieldObjectVersion {
			return mapText(value, m.version)
		}
		return value, nil
	})
}

func mapList(number protowire.Number, value []byte, m mapping) ([]byte, error) {
	switch number {
	case fieldMetadata:
		return mapFields(value, func(number protowire.Number, value []byte) ([]byte, error) {
			switch number {
			case fieldListVersion:
				return mapText(value, m.version)
			case fieldListContinue:
				return mapText(value, m.token)
			}
			return value, nil
		})
	case fieldItems:
		return mapFields(value, func(number protowire.Number, value []byte) ([]byte, error) { return mapObject(number, value, m) })
	}
	return value, nil
}

func mapDeleteOptions(in []byte, m mapping) ([]byte, error) {
	return mapFields(in, func(number protowire.Number, value []byte) ([]byte, error) {
		if number != fieldPreconditions {
			return value, nil
		}
		return mapFields(value, func(number protowire.Number, value []byte) ([]byte, error) {
			if number == fieldPreconditionsVersion {
				return mapText(value, m.version)
			}
			return value, nil
		})
	})
}

func mapText(value []byte, by func(string) (string, error)) ([]byte, error) {
	mapped, err := by(string(value))
	return []byte(mapped), err
}

// mapFields passes the length-delimited fields of a message through by; the
// others stay.
func mapFields(in []byte, by func(number protowire.Number, value []byte) ([]byte, error)) ([]byte, error) {
	out := make([]byte, 0, len(in)+32)
	for len(in) > 0 {
		number, kind, n := protowire.ConsumeTag(in)
		if n < 0 {
			return nil, errNotProtobuf
		}
		if kind != protowire.BytesType {
			m := protowire.ConsumeFieldValue(number, kind, in[n:])
			if m < 0 {
				return nil, errNotProtobuf
			}
			out, in = append(out, in[:n+m]...), in[n+m:]
			continue
		}
		value, m := protowire.ConsumeBytes(in[n:])
		if m < 0 {
			return nil, errNotProtobuf
		}
		mapped, err := by(number, value)
		if err != nil {
			return nil, err
		}
		out = protowire.AppendBytes(append(out, in[:n]...), mapped)
		in = in[n+m:]
	}
	return out, nil
}
