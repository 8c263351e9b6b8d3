package security

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tripod.dev/tripod/hub/api/denial"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// TestADeniedAgentIsOut: an agent whose name is put on the list of the denied loses
// its session and its tunnel, and gets neither again, nor another certificate.
func TestADeniedAgentIsOut(t *testing.T) {
	h := attacked(t)
	const cluster, name = "north-denied", "tripod:agent:north-denied"
	h.accept(t, cluster)
	agent := h.agent(t, cluster)
	conn, err := grpc.NewClient(h.at("6444"), grpc.WithTransportCredentials(credentials.NewTLS(h.tls(nil, agent))))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	session := func(ctx context.Context) (agentv1.Sessions_SessionClient, error) {
		stream, err := agentv1.NewSessionsClient(conn).Session(ctx)
		if err != nil {
			return nil, err
		}
		_ = stream.Send(&agentv1.AgentMessage{Kind: &agentv1.AgentMessage_Hello{Hello: &agentv1.Hello{Replica: "r"}}})
		_, err = stream.Recv()
		return stream, err
	}
	var open agentv1.Sessions_SessionClient
	eventually(t, "the agent has a session", func(context.Context) (err error) {
		open, err = session(t.Context())
		return err
	})
	tunnel := func() (io.Reader, string) {
		conn := h.dial(t, "6444", h.tls([]string{"tripod-tunnel/1"}, agent))
		t.Cleanup(func() { _ = conn.Close() })
		_, _ = io.WriteString(conn, "r\n")
		reader := bufio.NewReader(conn)
		answer, err := reader.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return reader, answer
	}
	inside, answer := tunnel()
	if answer != "OK\n" {
		t.Fatalf("the tunnel is answered %q", answer)
	}
	beating, stop := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		beat(beating, open)
	}()
	defer func() { stop(); <-stopped }()

	h.deny(t, name)
	denied := time.Now()
	for err = nil; err == nil; {
		_, err = open.Recv()
	}
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("the session ended with %v, want that the agent is denied", err)
	}
	t.Logf("the session ended %s after the list was written", time.Since(denied).Round(time.Millisecond))
	if _, err := io.Copy(io.Discard, inside); errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the tunnel: %v", err)
	}
	t.Logf("the tunnel ended %s after the list was written", time.Since(denied).Round(time.Millisecond))

	if _, err := session(t.Context()); status.Code(err) != codes.PermissionDenied {
		t.Errorf("another session is answered %v", err)
	}
	if _, answer := tunnel(); answer == "OK\n" {
		t.Error("another tunnel is opened")
	}
	request := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: cluster + "-again"}, Spec: certificatesv1.CertificateSigningRequestSpec{
		Request: signingRequest(t, name, []string{"tripod:agents"}), SignerName: "tripod.dev/agent", Usages: []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth},
	}}
	_, err = h.kube(t, h.as(t, agent)).CertificatesV1().CertificateSigningRequests().Create(t.Context(), request, metav1.CreateOptions{})
	if !apierrors.IsUnauthorized(err) {
		t.Errorf("the renewal of its certificate is answered %v", err)
	}
}

// beat keeps a session alive, so that it does not end for silence.
func beat(ctx context.Context, stream agentv1.Sessions_SessionClient) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for seq := uint64(1); ; seq++ {
		if err := stream.Send(&agentv1.AgentMessage{Kind: &agentv1.AgentMessage_Heartbeat{Heartbeat: &agentv1.Heartbeat{Seq: seq, Active: true}}}); err != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// deny puts a name on the list for the rest of the test.
func (h *running) deny(t *testing.T, name string) {
	t.Helper()
	secrets := h.kube(t, h.admin).CoreV1().Secrets(denial.Namespace)
	list := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: denial.Name}, StringData: map[string]string{denial.Key: denial.Line(name, "") + "\n"}}
	if _, err := secrets.Create(t.Context(), list, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := secrets.Delete(context.Background(), denial.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(fmt.Errorf("take the list away: %w", err))
		}
	})
}
