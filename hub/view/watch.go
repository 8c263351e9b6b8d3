package view

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/watch"
)

// watching is one open watch. It reads the collection's history at its own pace:
// one that falls behind the history is told to list anew and slows nobody.
type watching struct {
	handler *Handler
	query   *query
	writer  http.ResponseWriter
	flush   func() error
	version uint64
	headed  bool
}

func (h *Handler) watch(w http.ResponseWriter, r *http.Request, q *query) error {
	from, initial, err := q.start()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeoutOf(q))
	defer cancel()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-cache, private")
	w.WriteHeader(http.StatusOK)
	watching := &watching{handler: h, query: q, writer: w, flush: http.NewResponseController(w).Flush, version: from}
	if initial {
		if watching.begin(ctx) != nil {
			return nil // the client is gone
		}
	}
	watching.run(ctx)
	return nil
}

func timeoutOf(q *query) time.Duration {
	if seconds := q.options.TimeoutSeconds; seconds != nil && *seconds > 0 {
		return time.Duration(*seconds) * time.Second
	}
	return 30*time.Minute + rand.N(30*time.Minute)
}

// start tells from which version the watch goes on, or that it begins with what
// is there.
func (q *query) start() (version uint64, initial bool, err error) {
	if err := q.checkStreaming(); err != nil {
		return 0, false, err
	}
	if q.options.SendInitialEvents != nil {
		initial = *q.options.SendInitialEvents
	} else {
		initial = q.options.ResourceVersion == "" || q.options.ResourceVersion == "0"
	}
	if initial {
		return 0, true, nil
	}
	if q.options.ResourceVersion == "" || q.options.ResourceVersion == "0" {
		return q.collection.sequence.Load(), false, nil
	}
	version, err = strconv.ParseUint(q.options.ResourceVersion, 10, 64)
	if err != nil {
		return 0, false, apierrors.NewBadRequest(fmt.Sprintf("resourceVersion %q is not a number", q.options.ResourceVersion))
	}
	return version, false, nil
}

// checkStreaming refuses a streaming list of several clusters. A client-go
// reflector gathers one by namespace and name and would keep one of each name;
// told that it is invalid, it lists instead, and keeps all.
func (q *query) checkStreaming() error {
	streaming := q.options.SendInitialEvents != nil && *q.options.SendInitialEvents
	if _, exact := q.only(); !streaming || exact {
		return nil
	}
	reason := field.Forbidden(field.NewPath("sendInitialEvents"), "names are unique per cluster only: list, or select one cluster with the label selector "+ClusterName+"=NAME")
	return apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: "ListOptions"}, "", field.ErrorList{reason})
}

// begin shows everything that is there as added.
func (w *watching) begin(ctx context.Context) error {
	taken := w.query.collection.snapshot(w.query.audience.seesKnown)
	w.version = taken.version
	var failed error
	taken.walk(place{}, w.query.namespace(), func(o *object) bool {
		if w.query.matches(o) {
			failed = w.show(ctx, watch.Added, o)
		}
		return failed == nil
	})
	if failed == nil && w.query.options.SendInitialEvents != nil && w.query.options.AllowWatchBookmarks {
		failed = w.bookmark(true)
	}
	return failed
}

func (w *watching) run(ctx context.Context) {
	clock := w.handler.config.Clock
	bookmarks := clock.NewTicker(w.handler.config.BookmarkEvery)
	defer bookmarks.Stop()
	recheck := clock.NewTicker(w.handler.config.RecheckEvery)
	defer recheck.Stop()
	for {
		events, upTo, more, ok := w.query.collection.since(w.version)
		if !ok {
			w.fail(apierrors.NewResourceExpired("the fleet's view does not know that resourceVersion, or no longer: list anew"))
			return
		}
		for _, e := range events {
			kind, o, seen := e.seenBy(w.query.matches)
			if seen && w.show(ctx, kind, o) != nil {
				return
			}
		}
		w.version = upTo
		if w.flush() != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-more:
		case <-bookmarks.C():
			if w.query.options.AllowWatchBookmarks && w.bookmark(false) != nil {
				return
			}
		case <-recheck.C():
			if err := w.recheck(); err != nil {
				w.fail(err)
				return
			}
		}
	}
}

// recheck ends a watch whose person may see less, or more, than at its start.
func (w *watching) recheck() *apierrors.StatusError {
	if !w.query.audience.stillAllowed() {
		return apierrors.NewForbidden(w.query.resource.GroupVersionResource.GroupResource(), "", fmt.Errorf("the right to watch was withdrawn"))
	}
	if w.query.audience.refresh(nil) {
		return apierrors.NewResourceExpired("the clusters that you may see have changed: list anew")
	}
	return nil
}

func (w *watching) show(ctx context.Context, kind watch.EventType, o *object) error {
	shown, err := w.render(ctx, o)
	if err != nil {
		return err
	}
	return w.write(kind, shown)
}

func (w *watching) render(ctx context.Context, o *object) ([]byte, error) {
	if w.query.form != formTable {
		return o.as(w.query.form)
	}
	table, err := w.handler.table(ctx, w.query, []*object{o}, !w.headed)
	if err != nil {
		return nil, err
	}
	w.headed = true
	table.ResourceVersion = strconv.FormatUint(o.version, 10)
	return json.Marshal(table)
}

func (w *watching) write(kind watch.EventType, shown []byte) error {
	_, err := fmt.Fprintf(w.writer, `{"type":%q,"object":%s}`+"\n", kind, shown)
	return err
}

// bookmark tells how far the watch is, and how old its parts are.
func (w *watching) bookmark(initialEnd bool) error {
	annotations := w.handler.notes(w.query).annotations()
	if initialEnd {
		annotations[metav1.InitialEventsAnnotationKey] = "true"
	}
	kind, apiVersion := w.query.resource.Kind, w.query.resource.GroupVersion().String()
	version := strconv.FormatUint(w.version, 10)
	var mark any = map[string]any{"kind": kind, "apiVersion": apiVersion, "metadata": listMeta{ResourceVersion: version, Annotations: annotations}}
	switch w.query.form {
	case formTable:
		mark = metav1.Table{TypeMeta: tableType, ListMeta: metav1.ListMeta{ResourceVersion: version}, Rows: []metav1.TableRow{}}
	case formMetadata:
		mark = map[string]any{"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
			"metadata": listMeta{ResourceVersion: version, Annotations: annotations}}
	}
	shown, err := json.Marshal(mark)
	if err != nil {
		return fmt.Errorf("encode a bookmark: %w", err)
	}
	return w.write(watch.Bookmark, shown)
}

// fail ends the watch with the reason.
func (w *watching) fail(reason *apierrors.StatusError) {
	status := reason.Status()
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	if shown, err := json.Marshal(status); err == nil {
		_ = w.write(watch.Error, shown) // the client is gone if this fails
		_ = w.flush()
	}
}
