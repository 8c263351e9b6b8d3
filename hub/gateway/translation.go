package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

const (
	// maxRequest is more than an API server takes (3 MiB).
	maxRequest = 4 << 20
	// maxAnswer bounds what is held of one answer to translate it.
	maxAnswer = 256 << 20
	// maxDocument is more than the description of what a server can do has; it is held
	// for a moment.
	maxDocument = 32 << 20
)

// unstamp takes the marks from what the client sends. A version of another
// cluster is answered as one that is too old: 410 for a read, a conflict for a
// write, so that the client reads again.
func (v *voyage) unstamp(r *http.Request, inner *url.URL) (*http.Request, *metav1.Status) {
	if !v.translates() {
		return r, nil
	}
	query, err := unstampQuery(inner.Query(), v.stamp)
	if err != nil {
		expired := v.expired()
		return r, &expired
	}
	u := *r.URL
	u.RawQuery = inner.RawQuery
	if query != nil {
		u.RawQuery = query.Encode()
	}
	r = withURL(r, &u)
	// Of a body that says it has nothing the end alone is to come, and nothing waits for
	// that in time (Passes).
	if !v.writes || r.Body == nil || r.ContentLength == 0 {
		return r, nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRequest+1))
	switch {
	case err != nil:
		status := v.status(http.StatusBadRequest, metav1.StatusReasonBadRequest, "read the request: "+err.Error())
		return r, &status
	case len(body) > maxRequest:
		status := v.status(http.StatusRequestEntityTooLarge, metav1.StatusReasonRequestEntityTooLarge, "the request has more than 4 MiB: no API server takes it")
		return r, &status
	}
	mapped, err := unstampBody(r.Header.Get("Content-Type"), body, unstamped(v.stamp))
	switch {
	case errors.Is(err, errForeign):
		status := v.status(http.StatusConflict, metav1.StatusReasonConflict, fmt.Sprintf("the object's resourceVersion %s: read it again and repeat the change", errForeign))
		return r, &status
	case errors.Is(err, errEncoding):
		status := v.status(http.StatusUnsupportedMediaType, metav1.StatusReasonUnsupportedMediaType, err.Error())
		return r, &status
	case err != nil:
		mapped = body // the API server says better what is wrong with it
	}
	v.sent.body = mapped
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(mapped)), int64(len(mapped))
	return r, nil
}

// unstampQuery returns nil when there is nothing to change.
func unstampQuery(query url.Values, stamp string) (url.Values, error) {
	changed := false
	for name, by := range map[string]func(string, string) (string, error){"resourceVersion": unstampVersion, "continue": unstampToken} {
		for i, value := range query[name] {
			own, err := by(value, stamp)
			if err != nil {
				return nil, err
			}
			changed = changed || own != value
			query[name][i] = own
		}
	}
	if !changed {
		return nil, nil
	}
	return query, nil
}

var errEncoding = errors.New("send JSON, YAML or protobuf")

func unstampBody(contentType string, body []byte, m mapping) ([]byte, error) {
	if bytes.HasPrefix(body, protobufMagic) {
		return mapProtobuf(body, m)
	}
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		media = "application/json"
	}
	switch media {
	case "application/cbor", "application/apply-patch+cbor":
		return nil, errEncoding
	}
	if !bytes.Contains(body, []byte("resourceVersion")) {
		return body, nil
	}
	switch media {
	case "application/json-patch+json":
		return unstampJSONPatch(body, m)
	case "application/yaml", "application/apply-patch+yaml":
		if body, err = yaml.YAMLToJSON(body); err != nil {
			return nil, fmt.Errorf("read YAML: %w", err)
		}
	}
	return mapJSON(body, objectPlace, m)
}

// unstampJSONPatch changes the value of operations upon the version, "test" first
// of all.
func unstampJSONPatch(body []byte, m mapping) ([]byte, error) {
	var operations []map[string]json.RawMessage
	if err := json.Unmarshal(body, &operations); err != nil {
		return nil, fmt.Errorf("read the patch: %w", err)
	}
	for _, operation := range operations {
		var path, value string
		if json.Unmarshal(operation["path"], &path) != nil || path != "/metadata/resourceVersion" || json.Unmarshal(operation["value"], &value) != nil {
			continue
		}
		own, err := m.version(value)
		if err != nil {
			return nil, err
		}
		operation["value"] = json.RawMessage(strconv.Quote(own))
	}
	return json.Marshal(operations)
}

var errTooLarge = fmt.Errorf("the answer has more than %d MiB: ask for less at a time, with limit= (kubectl --chunk-size)", maxAnswer>>20)

// answer marks the versions in what the cluster says.
func (v *voyage) answer(response *http.Response) error {
	if v.discovers() {
		return hold(response)
	}
	if !v.translates() || response.Body == nil || response.Body == http.NoBody || response.StatusCode == http.StatusSwitchingProtocols {
		return nil
	}
	media, parameters, err := mime.ParseMediaType(response.Header.Get("Content-Type"))
	protobuf := media == "application/vnd.kubernetes.protobuf"
	if err != nil || media != "application/json" && !protobuf {
		if response.StatusCode >= http.StatusBadRequest {
			return nil // a text
		}
		return fmt.Errorf("its answer is %q, in which no resourceVersion can be marked", response.Header.Get("Content-Type"))
	}
	if v.info.Verb == "watch" && response.StatusCode == http.StatusOK {
		response.Body = v.watchBody(response.Body, protobuf, parameters)
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	_ = response.Body.Close() // read to its end, or given up
	if err != nil {
		return &cutError{fmt.Errorf("read its answer: %w", err)}
	}
	if len(body) > maxAnswer {
		return errTooLarge
	}
	if len(body) > 0 {
		if protobuf {
			body, err = mapProtobuf(body, stamped(v.stamp))
		} else {
			body, err = mapJSON(body, objectPlace, stamped(v.stamp))
		}
	}
	if err != nil {
		return fmt.Errorf("mark the resourceVersions of its answer: %w", err)
	}
	response.Body, response.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	response.TransferEncoding = nil
	response.Header.Set("Content-Length", strconv.Itoa(len(body)))
	return nil
}

// discovers is true for the documents that tell what the API server can do. Every
// kubectl apply reads some, up to megabytes, and fails for good on one that ends in the
// middle.
func (v *voyage) discovers() bool {
	if v.writes || v.info.IsResourceRequest {
		return false
	}
	for _, root := range []string{"/openapi", "/apis", "/api", "/version"} {
		if rest, ok := strings.CutPrefix(v.info.Path, root); ok && (rest == "" || rest[0] == '/') {
			return true
		}
	}
	return false
}

// hold passes nothing of an answer on before all of it is here, so that a client can be
// told to ask again. One above maxDocument begins when so much is here.
func hold(response *http.Response) error {
	if response.Body == nil || response.Body == http.NoBody || response.StatusCode == http.StatusSwitchingProtocols {
		return nil
	}
	from := response.Body
	body, err := io.ReadAll(io.LimitReader(from, maxDocument))
	if err != nil {
		_ = from.Close() // it is broken
		return &cutError{fmt.Errorf("read its answer: %w", err)}
	}
	response.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(body), from), from}
	return nil
}
