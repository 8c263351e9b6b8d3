package audit

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	authnv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// appendEvent appends the event as an audit.k8s.io/v1 Event in JSON, byte for byte as
// the API's own codec writes it (TestEncodingIsTheAPIs). There is one for each
// request, and the codec's conversion and reflection were a twelfth of what a request
// through the gateway took.
func appendEvent(to []byte, event *auditinternal.Event) ([]byte, error) {
	w := &writer{to: to}
	w.begin(`"kind":"Event","apiVersion":"`, auditv1.SchemeGroupVersion.String())
	w.field("level", string(event.Level))
	w.field("auditID", string(event.AuditID))
	w.field("stage", string(event.Stage))
	w.field("requestURI", event.RequestURI)
	w.field("verb", event.Verb)
	w.user("user", &event.User)
	if event.ImpersonatedUser != nil {
		w.user("impersonatedUser", event.ImpersonatedUser)
	}
	if event.AuthenticationMetadata != nil {
		w.object("authenticationMetadata", field{"impersonationConstraint", event.AuthenticationMetadata.ImpersonationConstraint})
	}
	w.strings("sourceIPs", event.SourceIPs)
	w.optional("userAgent", event.UserAgent)
	if ref := event.ObjectRef; ref != nil {
		w.object("objectRef", field{"resource", ref.Resource}, field{"namespace", ref.Namespace}, field{"name", ref.Name}, field{"uid", string(ref.UID)},
			field{"apiGroup", ref.APIGroup}, field{"apiVersion", ref.APIVersion}, field{"resourceVersion", ref.ResourceVersion}, field{"subresource", ref.Subresource})
	}
	if event.ResponseStatus != nil {
		w.status(event.ResponseStatus)
	}
	if event.RequestObject != nil {
		w.any("requestObject", event.RequestObject)
	}
	if event.ResponseObject != nil {
		w.any("responseObject", event.ResponseObject)
	}
	w.time("requestReceivedTimestamp", event.RequestReceivedTimestamp)
	w.time("stageTimestamp", event.StageTimestamp)
	w.pairs("annotations", event.Annotations)
	w.to = append(w.to, '}')
	return w.to, w.err
}

// writer appends JSON. Names are the API's: they need no escapes.
type writer struct {
	to  []byte
	err error
}

// field is one of strings that are left out when they are empty.
type field struct{ name, value string }

func (w *writer) begin(text, value string) {
	w.to = append(append(append(w.to, '{'), text...), value+`"`...)
}

// name appends a field's name, behind a comma unless it is the first of its object.
func (w *writer) name(name string) {
	if w.to[len(w.to)-1] != '{' {
		w.to = append(w.to, ',')
	}
	w.to = append(append(append(w.to, '"'), name...), `":`...)
}

func (w *writer) field(name, value string) {
	w.name(name)
	w.string(value)
}

func (w *writer) optional(name, value string) {
	if value != "" {
		w.field(name, value)
	}
}

func (w *writer) object(name string, fields ...field) {
	w.name(name)
	w.to = append(w.to, '{')
	for _, f := range fields {
		w.optional(f.name, f.value)
	}
	w.to = append(w.to, '}')
}

func (w *writer) user(name string, user *authnv1.UserInfo) {
	w.object(name, field{"username", user.Username}, field{"uid", user.UID})
	w.to = w.to[:len(w.to)-1] // it goes on
	w.strings("groups", user.Groups)
	if len(user.Extra) > 0 {
		w.name("extra")
		w.to = append(w.to, '{')
		for _, key := range slices.Sorted(maps.Keys(user.Extra)) {
			w.extra(key, user.Extra[key])
		}
		w.to = append(w.to, '}')
	}
	w.to = append(w.to, '}')
}

// extra appends a list of which nil and empty are told apart. Its name is not the API's.
func (w *writer) extra(name string, values []string) {
	if w.to[len(w.to)-1] != '{' {
		w.to = append(w.to, ',')
	}
	w.string(name)
	w.to = append(w.to, ':')
	switch {
	case values == nil:
		w.to = append(w.to, "null"...)
	case len(values) == 0:
		w.to = append(w.to, "[]"...)
	default:
		w.list(values)
	}
}

// strings appends a list that is left out when it is empty.
func (w *writer) strings(name string, values []string) {
	if len(values) == 0 {
		return
	}
	w.name(name)
	w.list(values)
}

// list appends values, of which there is one at least.
func (w *writer) list(values []string) {
	for i, value := range values {
		w.to = append(w.to, "[,"[min(i, 1)])
		w.string(value)
	}
	w.to = append(w.to, ']')
}

// pairs appends a map that is left out when it is empty, by its keys.
func (w *writer) pairs(name string, pairs map[string]string) {
	if len(pairs) == 0 {
		return
	}
	w.name(name)
	for i, key := range slices.Sorted(maps.Keys(pairs)) {
		w.to = append(w.to, "{,"[min(i, 1)])
		w.string(key)
		w.to = append(w.to, ':')
		w.string(pairs[key])
	}
	w.to = append(w.to, '}')
}

func (w *writer) time(name string, at metav1.MicroTime) {
	w.name(name)
	if at.IsZero() {
		w.to = append(w.to, "null"...)
		return
	}
	w.to = append(at.UTC().AppendFormat(append(w.to, '"'), metav1.RFC3339Micro), '"')
}

// status appends what became of the request: nearly always a code and nothing else.
func (w *writer) status(s *metav1.Status) {
	if code := s.Code; code != 0 && *s == (metav1.Status{Code: code}) {
		w.name("responseStatus")
		w.to = append(strconv.AppendInt(append(w.to, `{"metadata":{},"code":`...), int64(code), 10), '}')
		return
	}
	w.any("responseStatus", s)
}

// any appends what is rare, or has a form of its own.
func (w *writer) any(name string, value any) {
	encoded, err := json.Marshal(value)
	if err != nil {
		w.err = fmt.Errorf("%s: %w", name, err)
		return
	}
	w.name(name)
	w.to = append(w.to, encoded...)
}

// string appends a string, by itself unless it needs other escapes than quotes do, which
// every reason of RBAC has.
func (w *writer) string(value string) {
	from, copied := len(w.to), 0
	w.to = append(w.to, '"')
	for i := range len(value) {
		switch c := value[i]; {
		case c < ' ' || c > '~' || c == '<' || c == '>' || c == '&':
			encoded, err := json.Marshal(value)
			if err != nil {
				w.err = err // a string always has a form
			}
			w.to = append(w.to[:from], encoded...)
			return
		case c == '"' || c == '\\':
			w.to = append(append(w.to, value[copied:i]...), '\\', c)
			copied = i + 1
		}
	}
	w.to = append(append(w.to, value[copied:]...), '"')
}
