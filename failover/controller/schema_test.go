package controller

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"tripod.dev/tripod/hub/api/crds"
)

// judged fails the test when the engine writes what the schema of its kind refuses. In a
// hub nothing else would notice: the engine's statuses go below the API server's handlers
// (docs/decisions/0019).
type judged struct {
	Statuses
	t testing.TB
}

func (j judged) Update(ctx context.Context, obj client.Object) error {
	for _, wrong := range refusals(j.t, obj) {
		j.t.Errorf("the schema refuses a status of %T %s: %s", obj, obj.GetName(), wrong)
	}
	return j.Statuses.Update(ctx, obj)
}

// throughClient are Statuses written with a client.
type throughClient struct{ client.Client }

func (c throughClient) Update(ctx context.Context, obj client.Object) error {
	return c.Status().Update(ctx, obj)
}

// schemas are those of the CRDs, by kind.
var schemas = sync.OnceValues(func() (map[string]validation.SchemaValidator, error) {
	all := map[string]validation.SchemaValidator{}
	wanted, err := crds.All()
	if err != nil {
		return nil, err
	}
	for _, crd := range wanted {
		var props apiextensions.JSONSchemaProps
		if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(crd.Spec.Versions[0].Schema.OpenAPIV3Schema, &props, nil); err != nil {
			return nil, err
		}
		if all[crd.Spec.Names.Kind], _, err = validation.NewSchemaValidator(&props); err != nil {
			return nil, err
		}
	}
	return all, nil
})

func refusals(t testing.TB, obj client.Object) []error {
	t.Helper()
	all, err := schemas()
	if err != nil {
		t.Fatal(err)
	}
	kind, err := apiutil.GVKForObject(obj, Scheme())
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		t.Fatal(err)
	}
	var wrong []error
	for _, e := range validation.ValidateCustomResource(nil, fields, all[kind.Kind]) {
		if strings.HasPrefix(e.Field, "status") { // what a person writes is judged when it comes
			wrong = append(wrong, e)
		}
	}
	return wrong
}
