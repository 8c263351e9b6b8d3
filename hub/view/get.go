package view

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"tripod.dev/tripod/syncer"
)

// get answers with the one object of that name. Names are unique per cluster
// only: when several clusters have one, the answer says how to choose.
func (h *Handler) get(w http.ResponseWriter, r *http.Request, q *query) error {
	key := &object{key: syncer.Key{Namespace: q.namespace(), Name: q.info.Name}}
	taken := q.collection.snapshot(q.audience.seesKnown)
	var found []*object
	var where []string
	for _, cluster := range taken.clusters {
		if o, ok := taken.trees[cluster].Get(key); ok && q.matches(o) {
			found = append(found, o)
			where = append(where, cluster)
		}
	}
	name := q.resource.GroupVersionResource.GroupResource()
	switch len(found) {
	case 0:
		return apierrors.NewNotFound(name, q.info.Name)
	case 1:
	default:
		err := apierrors.NewConflict(name, q.info.Name, nil)
		err.ErrStatus.Message = fmt.Sprintf("%s %q is in the clusters %s: choose one, as /clusters/NAME, with ?cluster=NAME, or in a list with the label selector %s=NAME",
			name, q.info.Name, strings.Join(where, ", "), ClusterName)
		return err
	}
	var body []byte
	var err error
	if q.form == formTable {
		table, err := h.table(r.Context(), q, found, true)
		if err != nil {
			return err
		}
		if body, err = json.Marshal(table); err != nil {
			return fmt.Errorf("encode a table of %s: %w", q.resource.Resource, err)
		}
	} else if body, err = found[0].as(q.form); err != nil {
		return err
	}
	send(w, r, body)
	return nil
}
