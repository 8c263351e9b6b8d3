package view

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// compressFrom is the size from which a list is compressed for clients that ask
// for it; the API server's own threshold.
const compressFrom = 128 << 10

// listMeta is a ListMeta with annotations.
type listMeta struct {
	ResourceVersion string            `json:"resourceVersion,omitempty"`
	Continue        string            `json:"continue,omitempty"`
	Annotations     map[string]string `json:"annotations,omitempty"`
}

// token is a continue token. Pages after the first show the state of their own
// time; all say the version of the first, so that a watch from it misses nothing.
type token struct {
	Version uint64 `json:"v"`
	After   place  `json:"a"`
}

func (t token) String() string {
	encoded, err := json.Marshal(t)
	if err != nil {
		panic(err) // a struct of strings and a number
	}
	return base64.RawURLEncoding.EncodeToString(encoded)
}

func parseToken(s string) (token, error) {
	var t token
	decoded, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil {
		err = json.Unmarshal(decoded, &t)
	}
	if err != nil {
		return token{}, apierrors.NewBadRequest("the continue token is not one of this view: list from the start")
	}
	return t, nil
}

func (h *Handler) list(w http.ResponseWriter, r *http.Request, q *query) error {
	objects, meta, err := h.page(q)
	if err != nil {
		return err
	}
	var body bytes.Buffer
	if q.form == formTable {
		table, err := h.table(r.Context(), q, objects, true)
		if err != nil {
			return err
		}
		table.ResourceVersion, table.Continue = meta.ResourceVersion, meta.Continue
		if err := json.NewEncoder(&body).Encode(table); err != nil {
			return fmt.Errorf("encode a table of %s: %w", q.resource.Resource, err)
		}
	} else if err := encodeList(&body, q, objects, meta); err != nil {
		return err
	}
	send(w, r, body.Bytes())
	return nil
}

// page reads what one list request asks for.
func (h *Handler) page(q *query) ([]*object, listMeta, error) {
	var from token
	if q.options.Continue != "" {
		var err error
		if from, err = parseToken(q.options.Continue); err != nil {
			return nil, listMeta{}, err
		}
	}
	if err := h.checkExact(q); err != nil {
		return nil, listMeta{}, err
	}
	taken := q.collection.snapshot(q.audience.seesKnown)
	if from.Version == 0 {
		from.Version = taken.version
	}
	meta := listMeta{ResourceVersion: strconv.FormatUint(from.Version, 10), Annotations: h.notes(q).annotations()}
	var objects []*object
	taken.walk(from.After, q.namespace(), func(o *object) bool {
		if !q.matches(o) {
			return true
		}
		if limit := q.options.Limit; limit > 0 && int64(len(objects)) == limit {
			last := objects[len(objects)-1]
			meta.Continue = token{from.Version, place{last.cluster, last.key.Namespace, last.key.Name}}.String()
			return false
		}
		objects = append(objects, o)
		return true
	})
	return objects, meta, nil
}

// checkExact refuses a list at one exact version: the view holds the newest only.
func (h *Handler) checkExact(q *query) error {
	if q.options.ResourceVersionMatch != metav1.ResourceVersionMatchExact || q.options.Continue != "" {
		return nil
	}
	if q.options.ResourceVersion == strconv.FormatUint(h.config.View.sequence.Load(), 10) {
		return nil
	}
	return apierrors.NewResourceExpired("the fleet's view holds its newest version only: list without resourceVersionMatch=Exact")
}

func encodeList(body *bytes.Buffer, q *query, objects []*object, meta listMeta) error {
	kind, apiVersion := q.resource.Kind+"List", q.resource.GroupVersion().String()
	if q.form == formMetadata {
		kind, apiVersion = "PartialObjectMetadataList", "meta.k8s.io/v1"
	}
	encoded, err := json.Marshal(meta)
	if err != nil {
		return fmt.Errorf("encode list metadata: %w", err)
	}
	fmt.Fprintf(body, `{"kind":%q,"apiVersion":%q,"metadata":%s,"items":[`, kind, apiVersion, encoded)
	for i, o := range objects {
		if i > 0 {
			body.WriteByte(',')
		}
		item, err := o.as(q.form)
		if err != nil {
			return err
		}
		body.Write(item)
	}
	body.WriteString("]}")
	return nil
}

// as is the object's JSON in a form other than a table.
func (o *object) as(f form) ([]byte, error) {
	if f != formMetadata {
		return o.json, nil
	}
	var top struct {
		Metadata json.RawMessage `json:"metadata"`
	}
	if err := json.Unmarshal(o.json, &top); err != nil {
		return nil, fmt.Errorf("decode %s/%s of cluster %s: %w", o.key.Namespace, o.key.Name, o.cluster, err)
	}
	return slices.Concat([]byte(`{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":`), top.Metadata, []byte("}")), nil
}

func send(w http.ResponseWriter, r *http.Request, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	if len(body) < compressFrom || !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		_, _ = w.Write(body) // the client is gone if this fails
		return
	}
	w.Header().Set("Content-Encoding", "gzip")
	w.Header().Add("Vary", "Accept-Encoding")
	compressed, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		panic(err) // the level is a constant
	}
	_, _ = compressed.Write(body)
	_ = compressed.Close()
}
