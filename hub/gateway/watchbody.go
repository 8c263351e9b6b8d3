package gateway

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// maxEvent bounds one event of a watch; an object has 3 MiB at most.
const maxEvent = 16 << 20

// watchBody passes on a watch event by event, so that its end, when the
// application moves, comes between two. One Read at a time.
type watchBody struct {
	io.Closer
	next func() ([]byte, error)
	// farewell is sent last, when the stream ends because the application moved.
	farewell func() ([]byte, error)
	moved    func() bool

	rest  []byte
	ended error
}

func (v *voyage) watchBody(from io.ReadCloser, protobuf bool, _ map[string]string) io.ReadCloser {
	m := stamped(v.stamp)
	body := &watchBody{Closer: from, moved: v.moved}
	if protobuf {
		body.next = func() ([]byte, error) { return nextFrame(from, m) }
		body.farewell = func() ([]byte, error) { return protobufError(v.expired()) }
		return body
	}
	events := json.NewDecoder(from)
	body.next = func() ([]byte, error) {
		var event json.RawMessage
		if err := events.Decode(&event); err != nil {
			return nil, err
		}
		mapped, err := mapJSON(event, eventPlace, m)
		return append(mapped, '\n'), err
	}
	body.farewell = func() ([]byte, error) { return jsonError(v.expired()) }
	return body
}

// Read implements io.Reader.
func (b *watchBody) Read(p []byte) (int, error) {
	for len(b.rest) == 0 {
		if b.ended != nil {
			return 0, b.ended
		}
		event, err := b.next()
		if err != nil && b.moved() {
			event, err = b.farewell()
			b.ended = io.EOF
		}
		if err != nil {
			b.ended = err
		}
		if len(event) > 0 && (err == nil) {
			b.rest = event
		}
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// nextFrame reads an event with its length before it.
func nextFrame(from io.Reader, m mapping) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(from, length[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(length[:])
	if size > maxEvent {
		return nil, fmt.Errorf("an event of the watch has %d bytes", size)
	}
	event := make([]byte, size)
	if _, err := io.ReadFull(from, event); err != nil {
		return nil, err
	}
	event, err := mapProtobufEvent(event, m)
	if err != nil {
		return nil, err
	}
	return framed(event), nil
}

func framed(event []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(event))), event...)
}

// jsonError and protobufError are a watch's last event.
func jsonError(status metav1.Status) ([]byte, error) {
	object, err := json.Marshal(status)
	if err != nil {
		return nil, err
	}
	event, err := json.Marshal(metav1.WatchEvent{Type: "ERROR", Object: runtime.RawExtension{Raw: object}})
	return append(event, '\n'), err
}

func protobufError(status metav1.Status) ([]byte, error) {
	raw, err := status.Marshal()
	if err != nil {
		return nil, err
	}
	object := runtime.Unknown{TypeMeta: runtime.TypeMeta{Kind: status.Kind, APIVersion: status.APIVersion}, Raw: raw}
	encoded, err := object.Marshal()
	if err != nil {
		return nil, err
	}
	event := metav1.WatchEvent{Type: "ERROR", Object: runtime.RawExtension{Raw: append(bytes.Clone(protobufMagic), encoded...)}}
	body, err := event.Marshal()
	return framed(body), errors.Join(err)
}
