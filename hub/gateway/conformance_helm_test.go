package gateway

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// theirs is a program of others that talks to API servers, from the module
// test/clients: from the folder TRIPOD_CLIENTS, from bin, or built here, which takes
// minutes the first time.
func theirs(t *testing.T, name, source string) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{os.Getenv("TRIPOD_CLIENTS"), filepath.Join(root, "bin")} {
		if path := filepath.Join(folder, name); folder != "" && exists(path) {
			return path
		}
	}
	path := filepath.Join(t.TempDir(), name)
	build := exec.CommandContext(t.Context(), "go", "build", "-o", path, source)
	build.Dir = filepath.Join(root, "test/clients")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v: %s: run `make clients`", source, err, out)
	}
	return path
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// helm installs, changes, takes back and removes a chart with a kind of its own,
// a hook and a look into the cluster.
func (c *caseOf) helm(t *testing.T) {
	home := t.TempDir()
	run := func(args ...string) string {
		t.Helper()
		command := exec.CommandContext(t.Context(), c.rig.helm, append([]string{"--kube-apiserver", c.host, "--namespace", c.namespace}, args...)...)
		command.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH")}
		var errors strings.Builder
		command.Stderr = &errors
		output, err := command.Output()
		if err != nil {
			t.Fatalf("helm %v: %v\n%s%s", args, err, output, errors.String())
		}
		return string(output)
	}
	colors := func(want string) {
		t.Helper()
		settings, err := c.rig.direct.CoreV1().ConfigMaps(c.namespace).Get(t.Context(), "shop-settings", metav1.GetOptions{})
		if err != nil || settings.Data["color"] != want || settings.Annotations["served-by"] != c.namespace {
			t.Errorf("the settings are %v %v, %v, want the color %s", settings.Data, settings.Annotations, err, want)
		}
		if got := c.kubectl(t, nil, "", "get", "paint", "shop", "-o", "jsonpath={.spec.color}"); got != want {
			t.Errorf("the paint is %q, want %q", got, want)
		}
	}
	run("install", "shop", "testdata/chart", "--set", "color=red", "--wait", "--timeout", "2m")
	colors("red")
	run("upgrade", "shop", "testdata/chart", "--set", "color=blue", "--wait", "--timeout", "2m")
	colors("blue")
	run("rollback", "shop", "1", "--wait", "--timeout", "2m")
	colors("red")

	var history []struct {
		Revision int    `json:"revision"`
		Status   string `json:"status"`
	}
	if err := json.Unmarshal([]byte(run("history", "shop", "-o", "json")), &history); err != nil {
		t.Fatal(err)
	}
	if len(history) != 3 || history[2].Status != "deployed" || history[1].Status != "superseded" {
		t.Errorf("the history is %+v", history)
	}
	if got := run("get", "values", "shop", "-o", "json"); !strings.Contains(got, `"red"`) {
		t.Errorf("the values are %s", got)
	}
	run("uninstall", "shop", "--wait", "--timeout", "2m")
	left, err := c.rig.direct.CoreV1().Secrets(c.namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "owner=helm"})
	if err != nil || len(left.Items) != 0 {
		t.Errorf("after the release went %d secrets are left, %v", len(left.Items), err)
	}
	if _, err := c.rig.direct.CoreV1().ConfigMaps(c.namespace).Get(t.Context(), "shop-settings", metav1.GetOptions{}); err == nil {
		t.Error("after the release went its settings are left")
	}
}
