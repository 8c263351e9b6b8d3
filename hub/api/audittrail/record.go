// Package audittrail is the form of the hub's audit log, for the hub, which
// writes it, and for whoever verifies it without the hub.
//
// Every line is an audit.k8s.io/v1 Event. Two of its annotations, sequence and
// previous, chain it to the line before. Marks are events of the log itself: one
// stands at the beginning of each file and after each restart, one after every few
// seconds in which something was written, one at the end of each file that was
// ended in order. A mark is signed by the hub and so vouches for all before it.
package audittrail

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Prefix of the annotations that are the log's own. An event that comes with one
// of them loses it.
const Prefix = "trail.tripod.dev/"

// Annotations of each line. Previous is the hash of the line before, of the first
// one Genesis.
const (
	AnnotationSequence = Prefix + "sequence"
	AnnotationPrevious = Prefix + "previous"
)

// Genesis is what the first line of a member's trail names as its previous one: a
// trail cannot be passed off as another's.
func Genesis(member, trail string) string {
	return Hash([]byte("tripod audit of " + member + " " + trail))
}

// Hash is of a line without its line feed.
func Hash(line []byte) string {
	sum := sha256.Sum256(line)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// errNoAnnotations is a mistake of who writes, not of the log.
var errNoAnnotations = errors.New("the event does not end with annotations: give it one at least before it is encoded")

// tail is how an encoded event with annotations ends: they are its last field.
var tail = []byte(`"}}`)

// Chain makes a line of an encoded audit.k8s.io/v1 Event that has annotations. It
// returns the line with its line feed, in the event's memory if that has room, and its
// hash. The event is not decoded: that would cost more than all the rest, under the
// lock of the log.
func Chain(event []byte, sequence uint64, previous string) (line []byte, hash string, err error) {
	event = bytes.TrimRight(event, "\n")
	if !bytes.HasSuffix(event, tail) {
		return nil, "", errNoAnnotations
	}
	line = slices.Grow(event[:len(event)-2], 200)
	line = append(line, `,"`+AnnotationSequence+`":"`...)
	line = strconv.AppendUint(line, sequence, 10)
	line = append(line, `","`+AnnotationPrevious+`":"`+previous...)
	line = append(line, tail...)
	hash = Hash(line)
	return append(line, '\n'), hash, nil
}

// record is what a verifier reads of a line.
type record struct {
	sequence uint64
	previous string
	head     *Head // of a mark
}

// parse reads a line. A mark must be byte for byte as this package writes it.
func parse(line []byte) (record, error) {
	var event struct {
		Kind        string            `json:"kind"`
		APIVersion  string            `json:"apiVersion"`
		At          string            `json:"stageTimestamp"`
		Annotations map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(line, &event); err != nil {
		return record{}, fmt.Errorf("it is not JSON: %w", err)
	}
	if event.Kind != "Event" || !strings.HasPrefix(event.APIVersion, "audit.k8s.io/") {
		return record{}, errors.New("it is not an event of audit.k8s.io")
	}
	text, ok := event.Annotations[AnnotationSequence]
	if !ok {
		return record{}, errors.New("it has no place in a chain: it was written by an older hub, or by something else")
	}
	sequence, err := strconv.ParseUint(text, 10, 64)
	if err != nil || sequence == 0 {
		return record{}, fmt.Errorf("its number %q is none", text)
	}
	r := record{sequence: sequence, previous: event.Annotations[AnnotationPrevious]}
	if _, ok := event.Annotations[annotationMark]; !ok {
		return r, nil
	}
	head, err := headOf(r, event.Annotations, event.At)
	if err != nil {
		return record{}, err
	}
	again, _, err := head.Line()
	if err != nil {
		return record{}, err
	}
	if !bytes.Equal(bytes.TrimRight(again, "\n"), line) {
		return record{}, errors.New("it is a mark, but not as the hub writes one")
	}
	r.head = &head
	return r, nil
}
