package ledger_test

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"

	"tripod.dev/tripod/deploy/ledger"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

var params = ledger.Params{Clusters: []ledger.Cluster{
	{Name: "north-1", Region: "north", Address: "10.210.0.11"},
	{Name: "north-2", Region: "north", Address: "10.210.0.12"},
	{Name: "south-1", Region: "south", Address: "10.210.0.13"},
}}

func render(t *testing.T) map[string]unstructured.Unstructured {
	t.Helper()
	manifests, err := ledger.Render(params)
	if err != nil {
		t.Fatal(err)
	}
	objects := map[string]unstructured.Unstructured{}
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifests), 4096)
	for {
		var u unstructured.Unstructured
		err := decoder.Decode(&u.Object)
		if errors.Is(err, io.EOF) {
			return objects
		}
		if err != nil {
			t.Fatal(err)
		}
		objects[u.GetKind()+"/"+u.GetName()] = u
	}
}

func convert[T any](t *testing.T, u unstructured.Unstructured) T {
	t.Helper()
	var object T
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(u.Object, &object, true); err != nil {
		t.Fatalf("%s/%s: %v", u.GetKind(), u.GetName(), err)
	}
	return object
}

func TestManifestsAreTheKindsThatTheHubServes(t *testing.T) {
	objects := render(t)
	dataset := convert[v1alpha1.Dataset](t, objects["Dataset/ledger-db"])
	var links []string
	for _, m := range dataset.Spec.Members {
		links = append(links, m.Cluster+"="+string(m.Link)+"@"+m.Address)
	}
	want := []string{"north-1=Synchronous@10.210.0.11:30432", "north-2=Synchronous@10.210.0.12:30432", "south-1=Asynchronous@10.210.0.13:30432"}
	if !slices.Equal(links, want) {
		t.Errorf("members are %v, want %v", links, want)
	}
	application := convert[v1alpha1.Application](t, objects["Application/ledger"])
	for _, name := range application.Spec.Placements {
		placement := convert[v1alpha1.Placement](t, objects["Placement/"+name])
		for _, r := range placement.Spec.Resources {
			if _, ok := objects[r.Kind+"/"+r.Name]; !ok {
				t.Errorf("placement %s selects %s/%s, which no manifest has", name, r.Kind, r.Name)
			}
		}
	}
	service := convert[v1alpha1.GlobalService](t, objects["GlobalService/"+application.Spec.Services[0]])
	if service.Spec.Host != ledger.Host || len(service.Spec.Endpoints) != len(params.Clusters) {
		t.Errorf("service is %+v", service.Spec)
	}
}

func TestPodMountsWhatClientsAndGuardsAreToldOf(t *testing.T) {
	objects := render(t)
	secret, _, _ := unstructured.NestedStringMap(objects["Secret/"+ledger.CredentialsSecret].Object, "stringData")
	for key, want := range map[string]string{"client-user": ledger.ClientUser, "database": ledger.Database} {
		if secret[key] != want {
			t.Errorf("%s is %q, want %q", key, secret[key], want)
		}
	}
	if secret[ledger.ClientPasswordKey] == "" || secret["monitor-password"] == "" || secret["replication-password"] == "" {
		t.Errorf("a password is missing: %v", secret)
	}
	text := objects["StatefulSet/ledger-db"]
	b, err := text.MarshalJSON()
	if err != nil || !strings.Contains(string(b), `"tripod-guard-ledger-db"`) || !strings.Contains(string(b), "/var/lib/ledger-db") {
		t.Errorf("the pod does not mount its guard's certificate and its volume: %s (%v)", b, err)
	}
}
