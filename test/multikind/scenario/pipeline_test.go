package scenario

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"tripod.dev/tripod/deploy/ledger"
)

// pipeline is what a team's pipeline does, again and again. It knows nothing of
// clusters and does not catch a failure of its own; it ends when it is told to.
const pipeline = `set -e
round=0
while [ ! -e stop ]; do
  round=$((round+1))
  sed "s/ROUND/$round/" manifest.yaml > applied.yaml
  kubectl apply -f applied.yaml
  kubectl rollout status deployment/pipeline --timeout=180s
  echo "finished $round"
done
`

const pipelineManifest = `apiVersion: apps/v1
kind: Deployment
metadata: {name: pipeline, namespace: pay}
spec:
  replicas: 1
  selector: {matchLabels: {app: pipeline}}
  template:
    metadata: {labels: {app: pipeline, round: "ROUND"}}
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 0
      tolerations: [{operator: Exists}]
      containers:
      - {name: pause, image: "tripod.dev/pause:dev", imagePullPolicy: IfNotPresent}
`

// S1 as a pipeline sees it: it applies and waits for its rollout through the route of
// the application while the center in which that is active loses power. It ends well
// without being changed, and what it applied last runs in the cluster that took over.
func TestS1APipelineGoesOnThroughTheLossOfACenter(t *testing.T) {
	f := fleet(t)
	if err := f.LeadFrom(t.Context(), remoteCenter); err != nil {
		t.Fatal(err)
	}
	clusters := make([]string, 0, len(f.Lab.Centers()))
	for _, c := range f.Lab.Centers() {
		clusters = append(clusters, c.Name)
		t.Cleanup(func() { drop(t, f, c.Name, "-n", ledger.Namespace, "deployment/pipeline") })
		// The application is installed wherever it may be active.
		must(t)(f.Kubectl(t.Context(), strings.NewReader(strings.Replace(pipelineManifest, "ROUND", "0", 1)), "--context", c.Name, "apply", "-f", "-"))
	}
	b := business(t, f)
	running := startPipeline(t, f)
	if err := running.awaitRounds(t.Context(), f, 2); err != nil {
		t.Fatal(err)
	}
	result, err := b.LosePrimary(t.Context(), false)
	if err != nil {
		t.Fatalf("lose the primary's center: %v", err)
	}
	t.Logf("result: %+v", result)
	if err := running.awaitRounds(t.Context(), f, running.rounds()+3); err != nil {
		t.Fatal(err)
	}
	last := running.end(t)
	if !slices.Contains(clusters, result.Promoted) {
		t.Fatalf("the run names no cluster that took over: %+v", result)
	}
	round := must(t)(f.Kubectl(t.Context(), nil, "--kubeconfig", filepath.Join(running.folder, "kubeconfig"), "--context", result.Promoted, "-n", ledger.Namespace, "get", "deployment", "pipeline",
		"-o", `jsonpath={.spec.template.metadata.labels.round} {.status.readyReplicas}`))
	if round != fmt.Sprintf("%d 1", last) {
		t.Errorf("in %s round and ready replicas are %q, want those of the last round %d", result.Promoted, round, last)
	}
	if err := b.Restore(t.Context(), result); err != nil {
		t.Fatalf("restore the lost center: %v", err)
	}
	audit(t, b)
}

// running is a pipeline that was started.
type running struct {
	folder string
	// done is closed when it has ended, with err.
	done chan struct{}
	err  error
}

// startPipeline gives the script a kubeconfig whose way to the hub does not lead
// through a center of the city.
func startPipeline(t *testing.T, f *Fleet) *running {
	t.Helper()
	r := &running{folder: t.TempDir(), done: make(chan struct{})}
	var away string
	for _, c := range f.Lab.Centers() {
		if c.Name == remoteCenter {
			away = c.Address.String()
		}
	}
	kubeconfig := must(t)(f.Tripodctl(t.Context(), "kubeconfig", "--server", away))
	program, err := filepath.Abs(filepath.Join(f.config.BinDir, "kubernode"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"kubeconfig": kubeconfig, "manifest.yaml": pipelineManifest, "pipeline.sh": pipeline,
		"kubectl": fmt.Sprintf("#!/bin/sh\nexec %s kubectl --kubeconfig kubeconfig --context %s/ledger -n %s \"$@\"\n", program, ledger.Namespace, ledger.Namespace),
	} {
		if err := os.WriteFile(filepath.Join(r.folder, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	log, err := os.Create(filepath.Join(r.folder, "log"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	command := exec.CommandContext(ctx, "sh", "pipeline.sh")
	command.Dir, command.Stdout, command.Stderr = r.folder, log, log
	command.Env = []string{"PATH=" + r.folder + ":" + os.Getenv("PATH"), "HOME=" + r.folder}
	command.WaitDelay = 5 * time.Second
	if err := command.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	go func() {
		defer close(r.done)
		r.err = command.Wait()
	}()
	t.Cleanup(func() {
		cancel()
		<-r.done
		_ = log.Close()
		if t.Failed() {
			t.Logf("the pipeline wrote:\n%s", r.log())
		}
	})
	return r
}

func (r *running) log() string {
	text, err := os.ReadFile(filepath.Join(r.folder, "log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// rounds is the number of the last round that was finished, 0 if none was.
func (r *running) rounds() int {
	last := 0
	for line := range strings.Lines(r.log()) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), "finished "); ok {
			if n, err := strconv.Atoi(text); err == nil {
				last = n
			}
		}
	}
	return last
}

// awaitRounds waits until so many are finished. A pipeline that ends before has
// failed.
func (r *running) awaitRounds(ctx context.Context, f *Fleet, n int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err := f.await(ctx, 3*time.Minute, fmt.Sprintf("the pipeline has finished %d rounds", n), func(context.Context) (string, error) {
		select {
		case <-r.done:
			cancel(fmt.Errorf("the pipeline ended by itself after %d rounds: %w\n%s", r.rounds(), cmp.Or(r.err, errors.New("without an error")), r.log()))
		default:
		}
		if done := r.rounds(); done < n {
			return fmt.Sprintf("%d so far", done), nil
		}
		return "", nil
	})
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// end tells the pipeline to stop after its round and returns the number of that.
func (r *running) end(t *testing.T) int {
	t.Helper()
	if err := os.WriteFile(filepath.Join(r.folder, "stop"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	select {
	case <-r.done:
		if r.err != nil {
			t.Fatalf("the pipeline failed: %v", r.err)
		}
	case <-time.After(5 * time.Minute):
		t.Fatal("the pipeline does not end")
	}
	return r.rounds()
}
