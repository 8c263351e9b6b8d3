package hub

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// TestAKubeconfigWorksWithOneMemberDown: what `tripodctl kubeconfig` writes leads to
// every member; when the one dies that the plain contexts lead to, the others' contexts
// work at once, tripodctl works with the file as it is, and --refresh mends the rest.
func TestAKubeconfigWorksWithOneMemberDown(t *testing.T) {
	if testing.Short() {
		t.Skip("three members start")
	}
	f := startFleet(t)
	tripodctl := filepath.Join(f.dir, "tripodctl")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", tripodctl, "../cmd/tripodctl").CombinedOutput(); err != nil {
		t.Fatalf("build tripodctl: %v: %s", err, out)
	}
	run := func(ctx context.Context, kubeconfig string, args ...string) (string, error) {
		command := exec.CommandContext(ctx, tripodctl, append([]string{"--kubeconfig", kubeconfig}, args...)...)
		command.Env = []string{"HOME=" + f.dir}
		var errors strings.Builder
		command.Stderr = &errors
		out, err := command.Output()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, errors.String())
		}
		return string(out), err
	}
	for _, p := range f.members {
		f.api(p)
	}
	f.makeCluster(t, "north-1")
	file := filepath.Join(f.dir, "fleet.kubeconfig")
	text, err := run(t.Context(), filepath.Join(f.members[0].Data, "admin.kubeconfig"), "kubeconfig")
	if err != nil {
		t.Fatal(err)
	}
	f.write(file, text)
	written := f.load(file)
	for _, place := range []string{"hub", "fleet", "north-1"} {
		for _, suffix := range []string{"", "@hub-a", "@hub-b", "@hub-c"} {
			if written.Contexts[place+suffix] == nil {
				t.Errorf("there is no context %s", place+suffix)
			}
			f.answers(written, place+suffix)
		}
	}

	var lost *process
	for _, p := range f.members {
		if strings.Contains(written.Clusters[written.Contexts["hub"].Cluster].Server, p.Address+":") {
			lost = p
		}
	}
	if lost == nil {
		t.Fatal("the plain contexts lead to no member")
	}
	lost.Kill()
	for _, p := range f.members {
		for _, place := range []string{"hub", "fleet", "north-1"} {
			if p != lost {
				f.answers(written, place+"@"+p.name)
			}
		}
	}
	f.eventually("tripodctl works with the file as it is", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second) // the two that are left may be electing
		defer cancel()
		// It ends with 2: the cluster has no agent.
		if out, err := run(ctx, file, "clusters"); !strings.Contains(out, "north-1") {
			return fmt.Errorf("it says %q: %w", out, err)
		}
		return nil
	})
	if _, err := run(t.Context(), file, "kubeconfig", "--refresh", file); err != nil {
		t.Fatal(err)
	}
	mended := f.load(file)
	for _, place := range []string{"hub", "fleet", "north-1"} {
		f.answers(mended, place)
	}
}

func (f *fleet) load(file string) *clientcmdapi.Config {
	f.t.Helper()
	config, err := clientcmd.LoadFromFile(file)
	if err != nil {
		f.t.Fatal(err)
	}
	return config
}

// answers asks the place of a context for its version. A cluster without an agent is
// answered for by the gateway, which says so.
func (f *fleet) answers(config *clientcmdapi.Config, name string) {
	f.t.Helper()
	f.eventually("context "+name+" answers", func(ctx context.Context) error {
		to, err := clientcmd.NewNonInteractiveClientConfig(*config, name, nil, nil).ClientConfig()
		if err != nil {
			return err
		}
		transport, err := rest.TransportFor(to)
		if err != nil {
			return err
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, to.Host+"/api", nil)
		if err != nil {
			return err
		}
		response, err := transport.RoundTrip(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		want := http.StatusOK
		if strings.HasPrefix(name, "north-1") {
			want = http.StatusServiceUnavailable
		}
		if response.StatusCode != want {
			return fmt.Errorf("it answered %s, want %d", response.Status, want)
		}
		return nil
	})
}

func (f *fleet) makeCluster(t *testing.T, name string) {
	t.Helper()
	config := f.api(f.members[0])
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	api, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	cluster := &v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Name: name}}
	cluster.Spec.Region, cluster.Spec.Center, cluster.Spec.Admission = "r", "c", v1alpha1.AdmissionAccepted
	if err := api.Create(t.Context(), cluster); err != nil {
		t.Fatal(err)
	}
}
