package view

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
	syncview "tripod.dev/tripod/syncer/view"
)

const (
	plain        = "application/json"
	tableAccept  = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
	partialArray = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
)

func pod(node, phase string) map[string]any {
	return map[string]any{"spec": map[string]any{"nodeName": node}, "status": map[string]any{"phase": phase}}
}

func threePods(t *testing.T) (*fleet, *agent, *agent) {
	f := newFleet(t, Config{})
	north := newAgent(t, f.View, "north-1", podResource, nodeResource)
	south := newAgent(t, f.View, "south-1", podResource, nodeResource)
	north.put(podResource, "pay", "ledger-0", map[string]string{"app": "ledger"}, pod("n1", "Running"))
	north.put(podResource, "web", "front-0", map[string]string{"app": "front"}, pod("n2", "Pending"))
	south.put(podResource, "pay", "ledger-0", map[string]string{"app": "ledger", ClusterName: "forged"}, pod("n1", "Running"))
	north.sync()
	south.sync()
	return f, north, south
}

func TestLists(t *testing.T) {
	f, _, _ := threePods(t)
	tests := map[string]struct {
		path string
		want []string
	}{
		"all clusters and namespaces, in order":          {"/api/v1/pods", []string{"north-1/pay/ledger-0", "north-1/web/front-0", "south-1/pay/ledger-0"}},
		"one namespace":                                  {"/api/v1/namespaces/pay/pods", []string{"north-1/pay/ledger-0", "south-1/pay/ledger-0"}},
		"a label":                                        {"/api/v1/pods?labelSelector=app%3Dfront", []string{"north-1/web/front-0"}},
		"the cluster's pseudo label":                     {"/api/v1/pods?labelSelector=tripod.dev%2Fcluster%3Dsouth-1", []string{"south-1/pay/ledger-0"}},
		"the pseudo label cannot be forged":              {"/api/v1/pods?labelSelector=tripod.dev%2Fcluster%3Dforged", []string{}},
		"the cluster's pseudo field":                     {"/api/v1/pods?fieldSelector=metadata.cluster%21%3Dsouth-1", []string{"north-1/pay/ledger-0", "north-1/web/front-0"}},
		"the cluster as parameter":                       {"/api/v1/pods?cluster=south-1", []string{"south-1/pay/ledger-0"}},
		"a name":                                         {"/api/v1/pods?fieldSelector=metadata.name%3Dfront-0", []string{"north-1/web/front-0"}},
		"a field of the kind":                            {"/api/v1/pods?fieldSelector=spec.nodeName%3Dn1,status.phase%3DRunning", []string{"north-1/pay/ledger-0", "south-1/pay/ledger-0"}},
		"a resource of which there is nothing":           {"/api/v1/nodes", []string{}},
		"an unknown version is answered with the newest": {"/api/v1/pods?resourceVersion=7&cluster=south-1", []string{"south-1/pay/ledger-0"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			code, _, list := f.fetch(test.path, plain)
			if diff := cmp.Diff(test.want, names(list)); diff != "" || code != http.StatusOK {
				t.Fatalf("%d %v\n%s", code, list["message"], diff)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	f, _, _ := threePods(t)
	tests := map[string]struct {
		path, accept string
		code         int
		message      string
	}{
		"a name that several clusters have":       {"/api/v1/namespaces/pay/pods/ledger-0", plain, 409, "north-1, south-1: choose one"},
		"a name that none has":                    {"/api/v1/namespaces/pay/pods/nobody", plain, 404, "not found"},
		"a resource that no cluster has":          {"/apis/example.test/v1/gadgets", plain, 404, "no cluster shows gadgets.example.test"},
		"a subresource":                           {"/api/v1/namespaces/pay/pods/ledger-0/log", plain, 405, "/clusters/NAME"},
		"a field label that the kind has not":     {"/api/v1/pods?fieldSelector=spec.color%3Dred", plain, 400, "field label not supported"},
		"a broken label selector":                 {"/api/v1/pods?labelSelector=%3D%3D", plain, 400, ""},
		"a continue token of somebody else":       {"/api/v1/pods?continue=abc", plain, 400, "list from the start"},
		"exactly a version that is gone":          {"/api/v1/pods?resourceVersion=7&resourceVersionMatch=Exact", plain, 410, "newest version only"},
		"a streaming list of several clusters":    {"/api/v1/pods?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan", plain, 422, "tripod.dev/cluster=NAME"},
		"nothing but protobuf":                    {"/api/v1/pods", "application/vnd.kubernetes.protobuf", 406, "application/json"},
		"a namespace of a resource that has none": {"/api/v1/namespaces/pay/nodes", plain, 404, ""},
		"an odd includeObject":                    {"/api/v1/pods?includeObject=Half", tableAccept, 400, "None, Metadata, Object"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			code, _, status := f.fetch(test.path, test.accept)
			if code != test.code || status["kind"] != "Status" || !strings.Contains(fmt.Sprint(status["message"]), test.message) {
				t.Fatalf("got %d %v", code, status)
			}
		})
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		r, _ := http.NewRequestWithContext(t.Context(), method, f.server.URL+"/api/v1/namespaces/pay/pods/x", strings.NewReader("{}"))
		response, err := f.server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("%s = %d", method, response.StatusCode)
		}
	}
}

func TestGetFindsTheOneClusterThatHasTheName(t *testing.T) {
	f, _, _ := threePods(t)
	code, _, object := f.fetch("/api/v1/namespaces/web/pods/front-0", plain)
	metadata := object["metadata"].(map[string]any)
	if code != 200 || metadata["annotations"].(map[string]any)[ClusterName] != "north-1" || object["kind"] != "Pod" {
		t.Fatalf("%d %v", code, object)
	}
	if code, _, object = f.fetch("/api/v1/namespaces/pay/pods/ledger-0?cluster=south-1", plain); code != 200 {
		t.Fatalf("%d %v", code, object)
	}
}

func TestPagesCoverTheListOnceAndSayTheFirstVersion(t *testing.T) {
	f := newFleet(t, Config{})
	var want []string
	for _, cluster := range []string{"a", "b", "c"} {
		agent := newAgent(t, f.View, cluster, podResource)
		for i := range 5 {
			agent.put(podResource, "ns", fmt.Sprint("p", i), nil, nil)
			want = append(want, fmt.Sprintf("%s/ns/p%d", cluster, i))
		}
		agent.sync()
	}
	var got, versions []string
	next := ""
	for page := 0; page == 0 || next != ""; page++ {
		_, _, list := f.fetch("/api/v1/namespaces/ns/pods?limit=4&continue="+url.QueryEscape(next), plain)
		got = append(got, names(list)...)
		meta := list["metadata"].(map[string]any)
		versions = append(versions, meta["resourceVersion"].(string))
		next, _ = meta["continue"].(string)
		newAgent(t, f.View, "d"+fmt.Sprint(page), nodeResource).sync() // versions move on meanwhile
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, version := range versions {
		if version != versions[0] {
			t.Errorf("versions differ: %v", versions)
		}
	}
}

func TestASilentClusterStaysVisibleWithItsAge(t *testing.T) {
	f := newFleet(t, Config{Expected: func() []string { return []string{"north-1", "south-1", "never-1"} }})
	north := newAgent(t, f.View, "north-1", podResource)
	south := newAgent(t, f.View, "south-1", podResource)
	south.put(podResource, "pay", "ledger-0", nil, nil)
	north.sync()
	south.sync()
	south.disconnect()
	f.clock.Step(42 * time.Second)
	_, header, list := f.fetch("/api/v1/pods", plain)
	if diff := cmp.Diff([]string{"south-1/pay/ledger-0"}, names(list)); diff != "" {
		t.Error(diff)
	}
	want := []string{
		`299 tripod "cluster never-1: this hub member has never heard it: nothing of it is shown"`,
		`299 tripod "cluster south-1: it is disconnected: what is shown of it is 42s old"`,
	}
	if diff := cmp.Diff(want, header.Values("Warning")); diff != "" {
		t.Error(diff)
	}
	ages := "never-1=unknown, north-1=0s, south-1=42s"
	annotations := list["metadata"].(map[string]any)["annotations"].(map[string]any)
	if header.Get(AgesHeader) != ages || annotations[AgesAnnotation] != ages || annotations[IncompleteAnnotation] == nil {
		t.Errorf("ages %q, annotations %v", header.Get(AgesHeader), annotations)
	}
	south.connect() // the new stream has not read pods again yet
	f.clock.Step(time.Second)
	if _, header, _ = f.fetch("/api/v1/pods", plain); !strings.Contains(header.Get(AgesHeader), "south-1=43s") {
		t.Errorf("ages %q", header.Get(AgesHeader))
	}
	south.sync()
	if _, header, _ = f.fetch("/api/v1/pods", plain); header.Get(AgesHeader) != "never-1=unknown, north-1=0s, south-1=0s" {
		t.Errorf("ages %q", header.Get(AgesHeader))
	}
	if _, header, _ = f.fetch("/api/v1/pods?cluster=north-1", plain); len(header.Values("Warning")) != 0 {
		t.Errorf("warned of clusters that were not asked for: %v", header.Values("Warning"))
	}
}

func TestAClusterThatMayNotBeSeenIsNotEvenNamed(t *testing.T) {
	f, _, south := threePods(t)
	f.rights.deny("clusters/south-1")
	south.disconnect()
	_, header, list := f.fetch("/api/v1/pods", plain)
	if diff := cmp.Diff([]string{"north-1/pay/ledger-0", "north-1/web/front-0"}, names(list)); diff != "" {
		t.Error(diff)
	}
	if strings.Contains(fmt.Sprint(header, list["metadata"]), "south-1") {
		t.Errorf("the cluster is named: %v %v", header, list["metadata"])
	}
	if code, _, _ := f.fetch("/api/v1/namespaces/pay/pods/ledger-0", plain); code != 200 {
		t.Errorf("the one visible object is a conflict: %d", code)
	}
}

func TestTablesStartWithTheCluster(t *testing.T) {
	f, _, _ := threePods(t)
	_, _, table := f.fetch("/api/v1/pods?limit=1", tableAccept)
	columns := table["columnDefinitions"].([]any)
	row := table["rows"].([]any)[0].(map[string]any)
	f.clock.Step(0)
	got := []any{table["kind"], columns[0].(map[string]any)["name"], columns[1].(map[string]any)["name"], row["cells"],
		row["object"].(map[string]any)["kind"], table["metadata"].(map[string]any)["continue"] != nil}
	want := []any{"Table", "Cluster", "Name", []any{"north-1", "ledger-0", "24h"}, "PartialObjectMetadata", true}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestCustomResourcesArePrintedByTheirDefinition(t *testing.T) {
	f := newFleet(t, Config{})
	a := newAgent(t, f.View, "north-1", widgetResource, definitionResource)
	a.put(widgetResource, "ns", "w", nil, map[string]any{"spec": map[string]any{"size": 7}})
	a.put(definitionResource, "", "widgets.example.test", nil, map[string]any{"spec": map[string]any{"group": "example.test",
		"versions": []any{map[string]any{"name": "v1", "additionalPrinterColumns": []any{
			map[string]any{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}}}}}})
	a.sync()
	_, _, table := f.fetch("/apis/example.test/v1/widgets", tableAccept)
	row := table["rows"].([]any)[0].(map[string]any)
	if diff := cmp.Diff([]any{"north-1", "w", float64(7)}, row["cells"]); diff != "" {
		t.Error(diff)
	}
}

func TestMetadataOnly(t *testing.T) {
	f, _, _ := threePods(t)
	_, _, list := f.fetch("/api/v1/pods", partialArray)
	item := list["items"].([]any)[0].(map[string]any)
	if list["kind"] != "PartialObjectMetadataList" || item["kind"] != "PartialObjectMetadata" || item["spec"] != nil {
		t.Fatalf("got %v", list)
	}
}

func TestDiscovery(t *testing.T) {
	f, _, _ := threePods(t)
	newAgent(t, f.View, "west-1", widgetResource)
	_, _, versions := f.fetch("/api", plain)
	_, _, core := f.fetch("/api/v1", plain)
	_, _, groups := f.fetch("/apis", plain)
	_, header, aggregated := f.fetch("/apis", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json")
	code, _, _ := f.fetch("/apis/unknown.test/v1", plain)
	pods := core["resources"].([]any)[1].(map[string]any)
	got := []any{versions["versions"], pods["name"], pods["verbs"], pods["shortNames"], len(groups["groups"].([]any)),
		aggregated["kind"], header.Get("Content-Type"), aggregated["items"].([]any)[0].(map[string]any)["metadata"].(map[string]any)["name"], code}
	want := []any{[]any{"v1"}, "pods", []any{"get", "list", "watch"}, []any{"po"}, 1,
		"APIGroupDiscoveryList", aggregatedType, "example.test", 404}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAResourceThatIsServedNoMoreGoes(t *testing.T) {
	f := newFleet(t, Config{})
	a := newAgent(t, f.View, "north-1", widgetResource)
	a.put(widgetResource, "ns", "w", nil, nil)
	a.sync()
	if _, err := f.client().Resource(widgetResource.GroupVersionResource).List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	a.held = nil
	a.connect()
	if code, _, _ := f.fetch("/apis/example.test/v1/widgets", plain); code != 404 {
		t.Errorf("got %d", code)
	}
}

func TestAClusterThatLeftTheFleetIsForgottenWithItsSession(t *testing.T) {
	fleet := []string{"north-1", "south-1"}
	f := newFleet(t, Config{Expected: func() []string { return fleet }})
	north := newAgent(t, f.View, "north-1", podResource)
	south := newAgent(t, f.View, "south-1", podResource)
	for _, a := range []*agent{north, south} {
		a.put(podResource, "ns", "p", nil, nil)
		a.sync()
	}
	fleet = nil // not known: nothing may be concluded from it
	north.disconnect()
	if _, _, list := f.fetch("/api/v1/pods", plain); len(names(list)) != 2 {
		t.Fatalf("got %v", names(list))
	}
	fleet = []string{"north-1"}
	south.disconnect()
	_, header, list := f.fetch("/api/v1/pods", plain)
	if diff := cmp.Diff([]string{"north-1/ns/p"}, names(list)); diff != "" || strings.Contains(fmt.Sprint(header), "south-1") {
		t.Errorf("%v\n%s", header, diff)
	}
}

func TestTheVersionIsTheOldestClusters(t *testing.T) {
	f := newFleet(t, Config{})
	for cluster, version := range map[string]string{"a": "v1.36.3", "b": "v1.35.11+vendor", "c": "odd"} {
		f.Facts(cluster, &agentv1.ClusterFacts{Version: version})
	}
	_, _, got := f.fetch("/version", plain)
	if got["gitVersion"] != "v1.35.11+vendor" || got["minor"] != "35" {
		t.Errorf("got %v", got)
	}
}

func TestAnObjectThatCannotBeDecodedIsLeftOutAlone(t *testing.T) {
	f, north, _ := threePods(t)
	f.Apply("north-1", north.replica(), &agentv1.ViewDelta{Resource: syncview.EncodeResource(podResource), Upserts: []*agentv1.ViewObject{
		{Object: []byte(`{"metadata":`)}, {Object: []byte(`{"metadata":{}}`)}, {Object: []byte(`null`)},
		{Object: []byte(`{"metadata":{"name":"ok","namespace":"web","uid":"1","odd \" name":1},"x\ny":{"z":1}}`)}}})
	_, _, list := f.fetch("/api/v1/namespaces/web/pods", plain)
	if diff := cmp.Diff([]string{"north-1/web/front-0", "north-1/web/ok"}, names(list)); diff != "" {
		t.Error(diff)
	}
}
