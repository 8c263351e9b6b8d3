package view

import (
	"context"
	"encoding/json"
	"fmt"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/registry/customresource/tableconvertor"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"tripod.dev/tripod/syncer"
)

var definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// customPrinter prints custom resources by the printer columns of their
// definition, which is in the view itself: the first cluster's that has it.
type customPrinter struct {
	view     *View
	resource syncer.Resource
}

// Print implements Printer.
func (p customPrinter) Print(ctx context.Context, kind schema.GroupVersionKind, objects [][]byte) (*metav1.Table, bool, error) {
	columns, ok, err := p.columns()
	if err != nil || !ok {
		return nil, false, err
	}
	convertor, err := tableconvertor.New(columns)
	if err != nil {
		return nil, false, fmt.Errorf("make the columns of %s: %w", p.resource.Resource, err)
	}
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(kind.GroupVersion().WithKind(kind.Kind + "List"))
	for _, raw := range objects {
		var one unstructured.Unstructured
		if err := json.Unmarshal(raw, &one.Object); err != nil {
			return nil, false, fmt.Errorf("decode an object of %s: %w", p.resource.Resource, err)
		}
		list.Items = append(list.Items, one)
	}
	table, err := convertor.ConvertToTable(ctx, list, &metav1.TableOptions{})
	return table, err == nil, err
}

func (p customPrinter) columns() ([]apiextensionsv1.CustomResourceColumnDefinition, bool, error) {
	collection, ok := p.view.find(definitions)
	if !ok || p.resource.Group == "" {
		return nil, false, nil
	}
	taken := collection.snapshot(func(string) bool { return true })
	key := &object{key: syncer.Key{Name: p.resource.Resource + "." + p.resource.Group}}
	for _, cluster := range taken.clusters {
		held, ok := taken.trees[cluster].Get(key)
		if !ok {
			continue
		}
		var definition apiextensionsv1.CustomResourceDefinition
		if err := json.Unmarshal(held.json, &definition); err != nil {
			return nil, false, fmt.Errorf("decode the definition of %s in cluster %s: %w", p.resource.Resource, cluster, err)
		}
		for _, version := range definition.Spec.Versions {
			if version.Name == p.resource.Version {
				return version.AdditionalPrinterColumns, true, nil
			}
		}
	}
	return nil, false, nil
}
