package apiserver

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/printers"
	printersinternal "k8s.io/kubernetes/pkg/printers/internalversion"
)

// Tables prints objects of the built-in kinds, pods and nodes included, as
// kube-apiserver would. It needs no server and is safe for concurrent use.
type Tables struct {
	generator *printers.HumanReadableGenerator
}

// NewTables makes a printer of tables.
func NewTables() *Tables {
	return &Tables{generator: printers.NewTableGenerator().With(printersinternal.AddHandlers)}
}

// Print returns one row per object, in their order: JSON of the given kind. Not
// ok means that the kind is not built in. Rows carry no object; the column
// definitions are the kind's. Priorities say which columns are for -o wide.
func (t *Tables) Print(_ context.Context, kind schema.GroupVersionKind, objects [][]byte) (table *metav1.Table, ok bool, err error) {
	if !legacyscheme.Scheme.Recognizes(kind) {
		return nil, false, nil
	}
	decoder := legacyscheme.Codecs.UniversalDecoder(schema.GroupVersion{Group: kind.Group, Version: runtime.APIVersionInternal})
	table = &metav1.Table{Rows: make([]metav1.TableRow, 0, len(objects))}
	for _, data := range objects {
		object, _, err := decoder.Decode(data, &kind, nil)
		if err != nil {
			return nil, true, fmt.Errorf("decode %s for a table: %w", kind.Kind, err)
		}
		printed, err := t.generator.GenerateTable(object, printers.GenerateOptions{Wide: true})
		if err != nil {
			return nil, false, nil // kinds without a printer of their own are left to the caller
		}
		if len(printed.Rows) != 1 {
			return nil, true, fmt.Errorf("print %s: %d rows for one object", kind.Kind, len(printed.Rows))
		}
		printed.Rows[0].Object = runtime.RawExtension{}
		table.ColumnDefinitions = printed.ColumnDefinitions
		table.Rows = append(table.Rows, printed.Rows[0])
	}
	if len(objects) == 0 {
		table.ColumnDefinitions, ok = t.columns(kind)
		return table, ok, nil
	}
	return table, true, nil
}

// columns prints an empty object for its columns' sake.
func (t *Tables) columns(kind schema.GroupVersionKind) ([]metav1.TableColumnDefinition, bool) {
	object, err := legacyscheme.Scheme.New(schema.GroupVersionKind{Group: kind.Group, Version: runtime.APIVersionInternal, Kind: kind.Kind})
	if err != nil {
		return nil, false
	}
	printed, err := t.generator.GenerateTable(object, printers.GenerateOptions{Wide: true})
	if err != nil {
		return nil, false
	}
	return printed.ColumnDefinitions, true
}
