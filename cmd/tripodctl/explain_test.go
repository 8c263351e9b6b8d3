package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

func TestErrorsSayWhatToDo(t *testing.T) {
	refused := &url.Error{Op: "Get", URL: "https://192.0.2.1:6443/api", Err: errors.New("no hub member answers: connection refused")}
	for name, tc := range map[string]struct {
		err  error
		want []string
		not  string
	}{
		"a hub that is down": {explain(fmt.Errorf("list clusters: %w", refused)), []string{"no hub member answers", "TRIPOD_HUB"}, "api?"},
		"a hub without a leader": {
			explain(fmt.Errorf("list clusters: %w", apierrors.NewTooManyRequests("storage is (re)initializing", 1))), []string{"list clusters", "tripodctl hub status"}, ""},
		"a request that ran out of time": {
			explain(fmt.Errorf("get the cluster x: %w", &url.Error{Op: "Get", URL: "https://192.0.2.1:6443/x", Err: context.DeadlineExceeded})),
			[]string{"get the cluster x: ", "tripodctl hub status"}, "https:"},
		"another hub's member": {
			explain(fmt.Errorf("list clusters: %w", x509.UnknownAuthorityError{})), []string{"not a member of the hub"}, ""},
		"a hub that is down, by gRPC": {
			plain(status.Error(codes.Unavailable, `connection error: desc = "transport: Error while dialing: no hub member answers: dial tcp 192.0.2.1:6444: i/o timeout"`)),
			[]string{"no hub member answers", "i/o timeout;", "6444"}, "desc ="},
		"an answer of the hub": {plain(status.Error(codes.NotFound, `"x" is no member of this hub`)), []string{`"x" is no member of this hub`}, "rpc error"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, want := range tc.want {
				if !strings.Contains(tc.err.Error(), want) {
					t.Errorf("%q does not contain %q", tc.err, want)
				}
			}
			if tc.not != "" && strings.Contains(tc.err.Error(), tc.not) {
				t.Errorf("%q contains %q", tc.err, tc.not)
			}
		})
	}
}

const someKubeconfig = `
apiVersion: v1
kind: Config
clusters:
- {name: a, cluster: {server: "https://192.0.2.1:6443/clusters/frankfurt-1"}}
contexts:
- {name: frankfurt-1, context: {cluster: a, user: me}}
users:
- {name: me, user: {}}
current-context: frankfurt-1
`

func TestWrongUseNamesTheRemedy(t *testing.T) {
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, []byte(someKubeconfig), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args string
		want string
	}{
		"a missing argument":             {"run", "use `tripodctl run NAME"},
		"an argument too many":           {"clusters all", "use `tripodctl clusters"},
		"an unknown command of a group":  {"hub bogus", "`tripodctl hub --help` lists them"},
		"an unknown flag":                {"clusters --bogus", "`tripodctl clusters --help`"},
		"no kubeconfig":                  {"clusters", "admin.kubeconfig"},
		"a kubeconfig that is not there": {"clusters --kubeconfig /nowhere/k", "/nowhere/k"},
		"a context that is not there":    {"clusters --context nope --kubeconfig " + kubeconfig, `no context "nope": it has frankfurt-1`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
			t.Setenv("HOME", t.TempDir())
			command := newCommand()
			command.SetArgs(strings.Fields(tc.args))
			command.SetOut(&bytes.Buffer{})
			err := command.ExecuteContext(t.Context())
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
}

// The hub is at the root of the server, whichever of its contexts is chosen.
func TestEveryContextOfTheHubReachesTheHub(t *testing.T) {
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, []byte(someKubeconfig), 0o600); err != nil {
		t.Fatal(err)
	}
	door := connection{kubeconfig: kubeconfig}
	config, err := door.restConfig()
	if err != nil {
		t.Fatal(err)
	}
	if want := "https://192.0.2.1:6443"; config.Host != want {
		t.Errorf("the hub is at %s, want %s", config.Host, want)
	}
}
