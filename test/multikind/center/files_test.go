package center

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	sigsyaml "sigs.k8s.io/yaml"
)

func threePlans(t *testing.T) []Plan {
	t.Helper()
	plans, err := Plans("default", 0, []string{"north-1", "north-2", "south-1"})
	if err != nil {
		t.Fatal(err)
	}
	return plans
}

// kube-proxy ends when its configuration file is written, even with the same bytes.
func TestPrepareLeavesUnchangedFilesAlone(t *testing.T) {
	plan, lib := threePlans(t)[0], t.TempDir()
	if _, err := plan.Prepare(lib); err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-time.Hour).Truncate(time.Second)
	times := func() map[string]time.Time {
		modified := map[string]time.Time{}
		err := filepath.Walk(lib, func(path string, info os.FileInfo, err error) error {
			if err == nil && !info.IsDir() {
				modified[path] = info.ModTime()
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return modified
	}
	for path := range times() {
		if err := os.Chtimes(path, long, long); err != nil {
			t.Fatal(err)
		}
	}
	before := times()
	if _, err := plan.Prepare(lib); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, times()); diff != "" {
		t.Errorf("a second Prepare touched files (-before +after):\n%s", diff)
	}
	if err := os.WriteFile(filepath.Join(lib, "kubernetes", "kubelet.yaml"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := plan.Prepare(lib); err != nil {
		t.Fatal(err)
	}
	if content, err := os.ReadFile(filepath.Join(lib, "kubernetes", "kubelet.yaml")); err != nil || len(content) == 0 {
		t.Errorf("a damaged file was not repaired: %v", err)
	}
}

func TestPrepareMakesCertificatesThatVerify(t *testing.T) {
	plan, lib := threePlans(t)[1], t.TempDir()
	admin, err := plan.Prepare(lib)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := admin.Clusters["cluster"].Server, "https://10.210.0.12:7443"; got != want {
		t.Errorf("administrator's server is %s, want %s", got, want)
	}
	folder := filepath.Join(lib, "kubernetes", "pki")
	roots := x509.NewCertPool()
	ca, err := os.ReadFile(filepath.Join(folder, "ca.crt"))
	if err != nil || !roots.AppendCertsFromPEM(ca) {
		t.Fatalf("read CA: %v", err)
	}
	for name, host := range map[string]string{"apiserver": "10.151.0.1", "kubelet-serving": "10.210.0.12"} {
		pair, err := tls.LoadX509KeyPair(filepath.Join(folder, name+".crt"), filepath.Join(folder, name+".key"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host}); err != nil {
			t.Errorf("certificate %s: %v", name, err)
		}
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "192.0.2.1"}); err == nil {
			t.Errorf("certificate %s is good for a stranger's address", name)
		}
	}
}

func TestConfigurationIsYAML(t *testing.T) {
	files, err := threePlans(t)[0].render()
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if !strings.HasSuffix(name, ".yaml") && !strings.HasSuffix(name, ".conflist") {
			continue
		}
		var parsed map[string]any
		if err := sigsyaml.UnmarshalStrict(content, &parsed); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	var kubelet struct{ CgroupRoot string }
	if err := sigsyaml.Unmarshal(files["kubelet.yaml"], &kubelet); err != nil || kubelet.CgroupRoot != "/tripod-lab-default/north-1" {
		t.Errorf("kubelet's cgroup root is %q (%v): kubelets that share a root delete each other's pods", kubelet.CgroupRoot, err)
	}
}

func TestBaseManifests(t *testing.T) {
	plans := threePlans(t)
	for name, tc := range map[string]struct {
		hubs    []Plan
		forward string
	}{
		"without a hub nothing is forwarded":                  {nil, ""},
		"the nearest hub member is asked first, south's last": {plans, "forward . 10.210.0.12 10.210.0.11 10.210.0.13 {"},
	} {
		t.Run(name, func(t *testing.T) {
			content, err := plans[1].BaseManifests(tc.hubs)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(content), "forward") != (tc.forward != "") || !strings.Contains(string(content), tc.forward) {
				t.Errorf("want %q in\n%s", tc.forward, content)
			}
			decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(content), 4096)
			for {
				var object unstructured.Unstructured
				if err := decoder.Decode(&object); errors.Is(err, io.EOF) {
					return
				} else if err != nil {
					t.Fatal(err)
				}
				if object.GetName() == "" || object.GetKind() == "" {
					t.Errorf("object without a name or kind: %v", object)
				}
			}
		})
	}
}

func TestPrepareHub(t *testing.T) {
	plans, lib := threePlans(t), t.TempDir()
	for i, plan := range plans {
		folder := filepath.Join(lib, plan.Name)
		if err := plan.PrepareHub(folder, plans, []byte("secret")); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(filepath.Join(folder, hubDir, "config.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		var config hubConfig
		if err := sigsyaml.UnmarshalStrict(content, &config); err != nil {
			t.Fatal(err)
		}
		if config.Bootstrap != (i == 0) {
			t.Errorf("%s: bootstrap is %v; exactly the first member forms the hub", plan.Name, config.Bootstrap)
		}
		if len(config.Members) != 3 || config.Members[i].Name != config.Name || config.Members[i].Address != plan.Address.String() {
			t.Errorf("%s: members %v do not name %s", plan.Name, config.Members, config.Name)
		}
	}
}
