package gateway

import (
	"bytes"
	"encoding/json"
	"mime"
	"net/http"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// sent is what decides whether a request may be sent once more.
type sent struct {
	method, contentType string
	upgrade             bool
	// body is held of what is translated, and nil of everything else.
	body []byte
}

// repeatable says whether the client may send the request again without looking
// first, although the cluster may have carried it out: it says what there shall
// be, by name, so that twice ends as once does, also where the application comes
// back to the cluster in between. What is done once more by a second request is
// not: a connection that was upgraded, what goes through to a program behind the
// API server, an object without a name of its own, and a patch of positions.
func (v *voyage) repeatable() bool {
	if !v.writes {
		return true
	}
	if v.sent.upgrade || !v.translates() {
		return false
	}
	switch v.sent.method {
	case http.MethodPut, http.MethodDelete:
		return true
	case http.MethodPatch:
		media, _, err := mime.ParseMediaType(v.sent.contentType)
		return err == nil && (media != "application/json-patch+json" || settles(v.sent.body))
	case http.MethodPost:
		return v.info.Name != "" || nameIn(v.sent.contentType, v.sent.body) != ""
	}
	return false
}

// settles says whether a JSON patch ends in one state, however often it is done.
// An operation upon an element of a list does not: it moves the others. A last
// part of digits may be a key, too; then the client decides.
func settles(patch []byte) bool {
	var operations []struct{ Op, Path string }
	if json.Unmarshal(patch, &operations) != nil {
		return false
	}
	for _, operation := range operations {
		last := operation.Path[strings.LastIndexByte(operation.Path, '/')+1:]
		element := last == "-" || last != "" && strings.Trim(last, "0123456789") == ""
		switch operation.Op {
		case "test", "replace":
		case "add", "remove":
			if element {
				return false
			}
		default: // move and copy take from what an earlier one may have changed
			return false
		}
	}
	return true
}

// nameIn is the name that an object was given by who creates it, empty with
// generateName and for what cannot be read.
func nameIn(contentType string, body []byte) string {
	if bytes.HasPrefix(body, protobufMagic) {
		return nameInProtobuf(body)
	}
	var object metav1.PartialObjectMetadata
	if media, _, _ := mime.ParseMediaType(contentType); strings.Contains(media, "yaml") {
		_ = yaml.Unmarshal(body, &object) // without a name, then
		return object.Name
	}
	_ = json.Unmarshal(body, &object)
	return object.Name
}

func nameInProtobuf(body []byte) string {
	var object runtime.Unknown
	if object.Unmarshal(body[len(protobufMagic):]) != nil {
		return ""
	}
	var meta metav1.ObjectMeta
	_, err := mapFields(object.Raw, func(number protowire.Number, value []byte) ([]byte, error) {
		if number != fieldMetadata {
			return value, nil
		}
		return value, meta.Unmarshal(value)
	})
	if err != nil {
		return ""
	}
	return meta.Name
}
