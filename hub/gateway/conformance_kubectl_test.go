package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"tripod.dev/tripod/test/multikind/kubeapi"
)

func (c *caseOf) kubectlVerbs(t *testing.T) {
	manifest := strings.NewReplacer("ROUND", "1", `"pipeline"`, `"`+c.namespace+`"`).Replace(pipelineManifest)
	for _, args := range []string{
		"create -f -", "get deployment api -o wide", "label deployment api tier=core", "annotate deployment api note=x", `patch deployment api --type=json -p=[{"op":"add","path":"/spec/paused","value":true}]`,
		"scale deployment api --replicas=3", "get deployment api -o jsonpath={.spec.replicas}", "describe deployment api", "replace -f -", "diff -f -", "apply -f -", "explain deployment.spec.replicas",
		"auth can-i create pods", "wait pod p --for=condition=Ready --timeout=30s", "get all", "get events", "create configmap tmp --from-literal=a=b", "delete configmap tmp --wait", "delete -f -", "version",
	} {
		got := c.kubectl(t, nil, manifest, strings.Split(args, " ")...)
		if strings.Contains(args, "jsonpath") && got != "3" {
			t.Errorf("%s says %q", args, got)
		}
	}
}

func (c *caseOf) kubectlStreams(t *testing.T) {
	for protocol, environment := range map[string][]string{"WebSocket": {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS=true"}, "SPDY": {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false"}} {
		t.Run(protocol, func(t *testing.T) {
			if got := c.kubectl(t, environment, "", "exec", "p", "--", "echo", "a", "b c"); got != "echo a b c\n" {
				t.Errorf("exec says %q", got)
			}
			big := strings.Repeat("0123456789abcdef\n", 1<<16)
			if got := c.kubectl(t, environment, big, "exec", "-i", "p", "--", "cat"); got != big {
				t.Errorf("exec gave %d of %d bytes back", len(got), len(big))
			}
			if got := c.kubectl(t, environment, "hello\n", "attach", "-i", "p"); !strings.Contains(got, "hello\n") {
				t.Errorf("attach says %q", got)
			}
		})
	}
	if got := c.kubectl(t, nil, "", "logs", "p"); got != "line 0\nline 1\nline 2\n" {
		t.Errorf("logs say %q", got)
	}
}

func (c *caseOf) portForward(t *testing.T) {
	transport, upgrader, err := spdy.RoundTripperFor(c.config())
	if err != nil {
		t.Fatal(err)
	}
	at := c.client().CoreV1().RESTClient().Post().Resource("pods").Namespace(c.namespace).Name("p").SubResource("portforward").URL()
	stop, ready := make(chan struct{}), make(chan struct{})
	forwarder, err := portforward.New(spdy.NewDialer(upgrader, &http.Client{Transport: transport}, "POST", at), []string{"0:8080"}, stop, ready, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- forwarder.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	ports, err := forwarder.GetPorts()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", ports[0].Local))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, "hello\n")
	if got, err := io.ReadAll(conn); string(got) != "8080 hello\n" {
		t.Errorf("the port says %q, %v", got, err)
	}
	_ = conn.Close()
	close(stop)
	<-done
}

func (c *caseOf) kubectlProxy(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	ctx, cancel := context.WithCancel(t.Context())
	command := exec.CommandContext(ctx, kubeapi.Program(t), "kubectl", "--server", c.host, "proxy", "--append-server-path", "--unix-socket", socket)
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = command.Wait() }()
	through := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	eventually(t, "the proxy answers", func() string {
		response, err := (&http.Client{Transport: through}).Get("http://localhost/api/v1/namespaces/" + c.namespace)
		if err != nil {
			return err.Error()
		}
		defer response.Body.Close()
		if body, _ := io.ReadAll(response.Body); response.StatusCode != 200 {
			return string(body)
		}
		return ""
	})
}

// debug adds a container to the pod. The kubelet would start it; the test says so
// in its place.
func (c *caseOf) debug(t *testing.T) {
	started := make(chan error, 1)
	go func() { started <- c.startDebugger(t.Context()) }()
	if got := c.kubectl(t, nil, "hello\n", "debug", "p", "-i", "--image=busybox", "--container=debugger", "--target=c", "--", "cat"); !strings.Contains(got, "hello\n") {
		t.Errorf("the debugger says %q", got)
	}
	if err := <-started; err != nil {
		t.Error(err)
	}
}

// startDebugger waits for the pod's first ephemeral container and makes it run.
func (c *caseOf) startDebugger(ctx context.Context) error {
	pods := c.rig.direct.CoreV1().Pods(c.namespace)
	w, err := pods.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=p"})
	if err != nil {
		return err
	}
	defer w.Stop()
	for event := range w.ResultChan() {
		pod, ok := event.Object.(*corev1.Pod)
		if !ok || len(pod.Spec.EphemeralContainers) == 0 {
			continue
		}
		if added := pod.Spec.EphemeralContainers[0]; added.Image != "busybox" || added.TargetContainerName != "c" {
			return fmt.Errorf("the added container is %+v", added)
		}
		pod.Status.EphemeralContainerStatuses = []corev1.ContainerStatus{{Name: "debugger", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
		_, err := pods.UpdateStatus(ctx, pod, metav1.UpdateOptions{})
		return err
	}
	return errors.New("nobody added a container to the pod")
}

// copyFiles lets the stand-in of the kubelet run tar on this machine.
func (c *caseOf) copyFiles(t *testing.T) {
	here, there, back := t.TempDir(), t.TempDir(), t.TempDir()
	content := strings.Repeat("0123456789abcdef", 1<<16)
	if err := os.WriteFile(filepath.Join(here, "big"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	c.kubectl(t, nil, "", "cp", filepath.Join(here, "big"), "p:"+there+"/big")
	c.kubectl(t, nil, "", "cp", "p:"+there+"/big", filepath.Join(back, "big"))
	if got, err := os.ReadFile(filepath.Join(back, "big")); err != nil || string(got) != content {
		t.Errorf("%d of %d bytes came back, %v", len(got), len(content), err)
	}
}
