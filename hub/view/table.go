package view

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/duration"
)

// Printer makes the columns of the kinds that it knows.
type Printer interface {
	// Print returns the kind's columns and one row per object, in their order;
	// ok is false for a kind that it does not know. Only the cells of the rows
	// are used.
	Print(ctx context.Context, kind schema.GroupVersionKind, objects [][]byte) (table *metav1.Table, ok bool, err error)
}

var tableType = metav1.TypeMeta{Kind: "Table", APIVersion: "meta.k8s.io/v1"}

var clusterColumn = metav1.TableColumnDefinition{
	Name: "Cluster", Type: "string", Description: "The cluster that the object is in.",
}

// table prints objects with their cluster first, then as their kind is printed.
func (h *Handler) table(ctx context.Context, q *query, objects []*object, header bool) (*metav1.Table, error) {
	printed, err := h.print(ctx, q, objects)
	if err != nil {
		return nil, err
	}
	table := &metav1.Table{TypeMeta: tableType, Rows: make([]metav1.TableRow, len(objects))}
	if header {
		table.ColumnDefinitions = append([]metav1.TableColumnDefinition{clusterColumn}, printed.ColumnDefinitions...)
	}
	for i, o := range objects {
		row := &table.Rows[i]
		row.Cells = append([]any{o.cluster}, printed.Rows[i].Cells...)
		row.Conditions = printed.Rows[i].Conditions
		if err := q.attach(row, o); err != nil {
			return nil, err
		}
	}
	return table, nil
}

func (q *query) attach(row *metav1.TableRow, o *object) error {
	f := formMetadata
	switch q.include {
	case metav1.IncludeNone:
		return nil
	case metav1.IncludeObject:
		f = formObject
	}
	raw, err := o.as(f)
	row.Object = runtime.RawExtension{Raw: raw}
	return err
}

// print asks the printer, then the kind's definition, and falls back to NAME and
// AGE, as it does when one of them fails: a table with less is better than none.
func (h *Handler) print(ctx context.Context, q *query, objects []*object) (*metav1.Table, error) {
	raw := make([][]byte, len(objects))
	for i, o := range objects {
		raw[i] = o.json
	}
	kind := q.resource.GroupVersionKind()
	for _, printer := range []Printer{h.config.Printer, customPrinter{h.config.View, q.resource}} {
		if printer == nil {
			continue
		}
		table, ok, err := printer.Print(ctx, kind, raw)
		if err == nil && ok && len(table.Rows) == len(objects) {
			return table, nil
		}
	}
	return h.printPlain(objects)
}

func (h *Handler) printPlain(objects []*object) (*metav1.Table, error) {
	table := &metav1.Table{ColumnDefinitions: []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string", Format: "name", Description: "Name is unique in its namespace and cluster."},
		{Name: "Age", Type: "string", Description: "Time since the object was created."},
	}}
	for _, o := range objects {
		var top struct {
			Metadata struct {
				CreationTimestamp metav1.Time `json:"creationTimestamp"`
			} `json:"metadata"`
		}
		if err := json.Unmarshal(o.json, &top); err != nil {
			return nil, fmt.Errorf("decode %s/%s of cluster %s: %w", o.key.Namespace, o.key.Name, o.cluster, err)
		}
		table.Rows = append(table.Rows, metav1.TableRow{Cells: []any{o.key.Name, h.age(top.Metadata.CreationTimestamp.Time)}})
	}
	return table, nil
}

func (h *Handler) age(created time.Time) string {
	if created.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(h.config.Clock.Since(created))
}
