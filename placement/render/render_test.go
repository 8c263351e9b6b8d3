package render_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/placement"
	"tripod.dev/tripod/placement/render"
)

var update = flag.Bool("update", false, "write the golden files anew")

func read(t *testing.T, file string) *unstructured.Unstructured {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	raw, err = yaml.YAMLToJSON(raw)
	if err != nil {
		t.Fatal(err)
	}
	obj := &unstructured.Unstructured{}
	if err := obj.UnmarshalJSON(raw); err != nil {
		t.Fatal(err)
	}
	return obj
}

func target() render.Target {
	six := int32(6)
	return render.Target{
		Cluster:   placement.Cluster{Name: "n1", Region: "north", Center: "north-1"},
		Share:     v1alpha1.PlacementDecision{Cluster: "n1", Replicas: &six},
		Placement: "pay/ledger", Revision: 42, Incarnation: 1,
		Overrides: []v1alpha1.Override{
			{
				Clusters: v1alpha1.ClusterSelector{Centers: []string{"north-1"}},
				Patches: []v1alpha1.OverridePatch{{Kind: "Deployment", JSONPatch: []v1alpha1.JSONPatchOperation{
					{Op: "replace", Path: "/spec/template/spec/containers/0/env/0/value", Value: &apiextensionsv1.JSON{Raw: []byte(`"north-1"`)}},
				}}},
			},
			{
				Clusters: v1alpha1.ClusterSelector{Centers: []string{"south-1"}},
				Patches: []v1alpha1.OverridePatch{{Kind: "Deployment", JSONPatch: []v1alpha1.JSONPatchOperation{
					{Op: "remove", Path: "/spec"},
				}}},
			},
		},
	}
}

func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no testdata: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			template := read(t, file)
			before := template.DeepCopy()
			obj, err := render.Render(template, target())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before.Object, template.Object); diff != "" {
				t.Errorf("rendering changed the template:\n%s", diff)
			}
			got, err := yaml.Marshal(obj.Object)
			if err != nil {
				t.Fatal(err)
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	tests := map[string]struct {
		edit func(*unstructured.Unstructured, *render.Target)
		want string
	}{
		"a patch of a path that is not there names the override": {
			func(_ *unstructured.Unstructured, r *render.Target) {
				r.Overrides[0].Patches[0].JSONPatch[0].Path = "/spec/none/0"
			}, "placement pay/ledger: overrides[0].patches[0] of Deployment pay/api for cluster n1",
		},
		"a patch that renames the object": {
			func(_ *unstructured.Unstructured, r *render.Target) {
				r.Overrides[0].Patches[0].JSONPatch[0] = v1alpha1.JSONPatchOperation{
					Op: "replace", Path: "/metadata/name", Value: &apiextensionsv1.JSON{Raw: []byte(`"other"`)},
				}
			}, "must leave apiVersion, kind, name and namespace",
		},
		"an override of rights": {
			func(o *unstructured.Unstructured, r *render.Target) {
				o.Object = map[string]any{
					"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": map[string]any{"name": "sre", "namespace": "pay"},
				}
				r.Overrides[0].Patches[0] = v1alpha1.OverridePatch{Kind: "RoleBinding", JSONPatch: []v1alpha1.JSONPatchOperation{
					{Op: "add", Path: "/subjects", Value: &apiextensionsv1.JSON{Raw: []byte(`[]`)}},
				}}
			}, "no override changes them",
		},
		"a service account token": {
			func(o *unstructured.Unstructured, _ *render.Target) {
				o.Object = map[string]any{
					"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
					"metadata": map[string]any{"name": "t", "namespace": "pay"},
				}
			}, "every cluster makes its own",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			template, r := read(t, "testdata/deployment.yaml"), target()
			test.edit(template, &r)
			_, err := render.Render(template, r)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
}
