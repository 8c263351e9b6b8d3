package apiserver

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestTablesPrintAsUpstream(t *testing.T) {
	const pod = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"nodeName":"n","containers":[{"name":"c"}]},"status":{"phase":"Running","containerStatuses":[{"name":"c","ready":true,"restartCount":2,"state":{"running":{}}}]}}`
	podKind := schema.GroupVersionKind{Version: "v1", Kind: "Pod"}
	for name, test := range map[string]struct {
		kind    schema.GroupVersionKind
		objects []string
		cells   [][]any
		ok      bool
		failed  bool
	}{
		"pods":                  {podKind, []string{pod, pod}, [][]any{{"p", "1/1", "Running", "2"}, {"p", "1/1", "Running", "2"}}, true, false},
		"no pods":               {podKind, nil, nil, true, false},
		"a custom kind":         {schema.GroupVersionKind{Group: "example.test", Version: "v1", Kind: "Thing"}, []string{`{}`}, nil, false, false},
		"a pod that is no JSON": {podKind, []string{`{`}, nil, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			var objects [][]byte
			for _, o := range test.objects {
				objects = append(objects, []byte(o))
			}
			table, ok, err := NewTables().Print(context.Background(), test.kind, objects)
			if ok != test.ok || (err != nil) != test.failed {
				t.Fatalf("ok %t, error %v", ok, err)
			}
			if !test.ok || test.failed {
				return
			}
			if diff := cmp.Diff(test.cells, firstCells(table, 4)); diff != "" {
				t.Errorf("cells (-want +got):\n%s", diff)
			}
			if len(table.ColumnDefinitions) == 0 || table.ColumnDefinitions[0].Name != "Name" {
				t.Errorf("columns %v", table.ColumnDefinitions)
			}
		})
	}
}

func firstCells(table *metav1.Table, n int) (cells [][]any) {
	for _, row := range table.Rows {
		cells = append(cells, row.Cells[:n])
	}
	return cells
}
