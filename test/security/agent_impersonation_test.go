package security

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"tripod.dev/tripod/hub"
	_ "tripod.dev/tripod/proto/agent/v1"
	_ "tripod.dev/tripod/proto/hub/v1"
	_ "tripod.dev/tripod/proto/raftlog/v1"
)

// mayAgent lists what the agent of a cluster may do at the hub's API; everything else
// that the API has is tried and must be refused. What every authenticated user may
// ask about itself is among it.
var mayAgent = map[string][]string{
	"certificates.k8s.io/certificatesigningrequests": {"create", "get", "list", "watch"},
	"authorization.k8s.io/selfsubjectaccessreviews":  {"create"},
	"authorization.k8s.io/selfsubjectrulesreviews":   {"create"},
	"authentication.k8s.io/selfsubjectreviews":       {"create"},
}

// TestAnAgentCannotBeAnotherOrTheHub takes everything that the agent of north-1 has,
// its certificate and key, and tries every call of every port with it, as the agent
// of north-2, as a guard, as a member and as a person.
func TestAnAgentCannotBeAnotherOrTheHub(t *testing.T) {
	h := attacked(t)
	agent := h.agent(t, "north-1")
	attempts := 0
	t.Run("no verb of no resource of the API", func(t *testing.T) { attempts += h.tryAPI(t, agent) })
	t.Run("no cluster, no fleet, no other name", func(t *testing.T) { attempts += h.tryGateway(t, agent) })
	t.Run("no gRPC call that is not an agent's", func(t *testing.T) { attempts += h.tryRPCs(t, agent) })
	t.Run("no certificate of another subject", func(t *testing.T) { attempts += h.tryCertificates(t, agent) })
	t.Run("no connection among members", func(t *testing.T) { attempts += h.tryRaft(t, agent) })
	t.Logf("%d attempts", attempts)
	if attempts < 200 {
		t.Errorf("%d attempts, want 200", attempts)
	}
}

// tryAPI tries each verb of each resource that discovery lists.
func (h *running) tryAPI(t *testing.T, agent tls.Certificate) (attempts int) {
	_, lists, err := h.kube(t, h.admin).Discovery().ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	client, err := rest.HTTPClientFor(h.as(t, agent))
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		base := "/apis/" + list.GroupVersion
		group, _, _ := strings.Cut(list.GroupVersion, "/")
		if !strings.Contains(list.GroupVersion, "/") {
			base, group = "/api/"+list.GroupVersion, ""
		}
		for _, resource := range list.APIResources {
			name, subresource, _ := strings.Cut(resource.Name, "/")
			path := base
			if resource.Namespaced {
				path += "/namespaces/kube-system"
			}
			path += "/" + name
			for verb, request := range map[string][2]string{
				"get": {"GET", path + "/x"}, "list": {"GET", path}, "watch": {"GET", path + "?watch=1&timeoutSeconds=1"},
				"create": {"POST", path}, "update": {"PUT", path + "/x"}, "patch": {"PATCH", path + "/x"},
				"delete": {"DELETE", path + "/x"}, "deletecollection": {"DELETE", path},
			} {
				target := request[1]
				if subresource != "" {
					if verb == "list" || verb == "watch" || verb == "deletecollection" {
						continue
					}
					target = path + "/x/" + subresource
				}
				attempts++
				code := answer(t, client, request[0], h.anonymous().Host+target)
				allowed := subresource == "" && slices.Contains(mayAgent[group+"/"+name], verb)
				if (code != http.StatusForbidden) != allowed {
					t.Errorf("%s %s: got %d, allowed %t", verb, target, code, allowed)
				}
			}
		}
	}
	return attempts
}

func answer(t *testing.T, client *http.Client, method, url string, header ...string) int {
	t.Helper()
	var body io.Reader
	if method != "GET" && method != "DELETE" {
		body = strings.NewReader("{}")
	}
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if method == "PATCH" {
		r.Header.Set("Content-Type", "application/merge-patch+json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	response, err := client.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 1<<20))
	return response.StatusCode
}

func (h *running) tryGateway(t *testing.T, agent tls.Certificate) (attempts int) {
	config := h.as(t, agent)
	config.NextProtos = []string{"http/1.1"} // HTTP/2 has no upgrades
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(method, path string, header ...string) {
		attempts++
		if code := answer(t, client, method, h.anonymous().Host+path, header...); code != http.StatusForbidden {
			t.Errorf("%s %s %q: got %d", method, path, header, code)
		}
	}
	for _, cluster := range []string{"north-1", "north-2"} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
			refused(method, "/clusters/"+cluster+"/api/v1/secrets")
		}
		refused("GET", "/clusters/"+cluster+"/api/v1/namespaces/n/pods/p/exec?command=id", "Connection", "Upgrade", "Upgrade", "SPDY/3.1")
	}
	for _, path := range []string{"/fleet/api/v1/secrets", "/fleet/api/v1/pods", "/fleet/apis/apps/v1/deployments", "/fleet/apis/tripod.dev/v1alpha1/clusters",
		"/metrics", "/logs", "/debug/pprof/", "/debug/flags/v", "/configz", "/statusz", "/flagz"} {
		refused("GET", path)
	}
	for _, who := range []string{"tripod:agent:north-2", "tripod:member:hub-a", "tripod:admin", "system:apiserver", "system:admin"} {
		refused("GET", "/api/v1/secrets", "Impersonate-User", who)
		refused("GET", "/api/v1/secrets", "Impersonate-User", who, "Impersonate-Group", "system:masters")
		// Front-proxy headers are ignored: it stays the agent.
		refused("GET", "/api/v1/secrets", "X-Remote-User", who, "X-Remote-Group", "system:masters")
		refused("GET", "/clusters/north-2/api", "X-Remote-User", who, "X-Remote-Group", "system:masters", "Connection", "X-Remote-User")
	}
	return attempts
}

// open are an agent's own session, and the certificates of the hub's CAs, which are
// no secret and which whoever has an identity must be able to renew.
var open = []string{"/tripod.agent.v1.Sessions/Session", "/tripod.hub.v1.Admin/Authorities"}

// tryRPCs tries every other method of every service that the hub's protocols have, on
// both ports that speak gRPC.
func (h *running) tryRPCs(t *testing.T, agent tls.Certificate) (attempts int) {
	for _, port := range []string{hub.RPCPort, hub.EtcdPort} {
		config := h.tls([]string{"h2"}, agent)
		config.MinVersion = tls.VersionTLS13
		conn, err := grpc.NewClient("passthrough:///"+h.at(port), grpc.WithTransportCredentials(credentials.NewTLS(config)))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for _, method := range methods(t) {
			name := fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name())
			if port == hub.RPCPort && slices.Contains(open, name) {
				continue
			}
			attempts++
			if code := h.call(t, conn, name, method); !slices.Contains([]codes.Code{codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented}, code) {
				t.Errorf("%s on port %s: got %v", name, port, code)
			}
		}
	}
	return attempts
}

// methods of Tripod's services, and of etcd's.
func methods(t *testing.T) (all []protoreflect.MethodDescriptor) {
	t.Helper()
	_ = pb.RangeRequest{} // registers etcd's
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		if pkg := string(file.Package()); !strings.HasPrefix(pkg, "tripod.") && pkg != "etcdserverpb" {
			return true
		}
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				all = append(all, methods.Get(j))
			}
		}
		return true
	})
	if len(all) < 30 {
		t.Fatalf("%d methods are known: the test wants all", len(all))
	}
	return all
}

func (h *running) call(t *testing.T, conn *grpc.ClientConn, name string, method protoreflect.MethodDescriptor) codes.Code {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, name)
	if err == nil {
		// An error of sending is told by receiving.
		_ = stream.SendMsg(dynamicpb.NewMessage(method.Input()))
		if !method.IsStreamingClient() {
			_ = stream.CloseSend()
		}
		err = stream.RecvMsg(dynamicpb.NewMessage(method.Output()))
	}
	return status.Code(err)
}

// tryCertificates asks for certificates that are not the agent's own, as a renewal.
func (h *running) tryCertificates(t *testing.T, agent tls.Certificate) (attempts int) {
	api := h.kube(t, h.as(t, agent)).CertificatesV1().CertificateSigningRequests()
	type subject struct {
		name   string
		groups []string
	}
	for i, s := range []subject{
		{"tripod:agent:north-2", []string{"tripod:agents"}},
		{"tripod:agent:north-1", []string{"tripod:agents", "system:masters"}},
		{"tripod:agent:north-1", []string{"tripod:members"}},
		{"tripod:guard:north-2:pay:ledger", []string{"tripod:guards"}},
		{"tripod:member:hub-a", []string{"tripod:members"}},
		{"tripod:admin", []string{"tripod:admins", "system:masters"}},
		{"system:admin", []string{"system:masters"}},
		{"system:kube-controller-manager", nil},
		{"ann", []string{"dev"}},
	} {
		for _, signer := range []string{"tripod.dev/agent", "tripod.dev/guard", "kubernetes.io/kube-apiserver-client", "tripod.dev/person"} {
			attempts++
			name := fmt.Sprintf("attack-%d-%s", i, strings.NewReplacer("/", "-", ".", "-").Replace(signer))
			request := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: name}}
			request.Spec.SignerName, request.Spec.Request = signer, signingRequest(t, s.name, s.groups)
			request.Spec.Usages = []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth}
			if strings.HasPrefix(signer, "tripod.dev/agent") {
				request.Spec.Usages = append(request.Spec.Usages, certificatesv1.UsageServerAuth)
			}
			if _, err := api.Create(t.Context(), request, metav1.CreateOptions{}); err != nil {
				continue // admission refused it
			}
			h.unsigned(t, name, signer)
		}
	}
	return attempts
}

// unsigned waits for the hub's decision about a request of its own signers; those of
// others wait for a person.
func (h *running) unsigned(t *testing.T, name, signer string) {
	t.Helper()
	admin := h.kube(t, h.admin).CertificatesV1().CertificateSigningRequests()
	var got *certificatesv1.CertificateSigningRequest
	eventually(t, "the decision about "+name, func(ctx context.Context) (err error) {
		got, err = admin.Get(ctx, name, metav1.GetOptions{})
		if err == nil && len(got.Status.Conditions) == 0 && (signer == "tripod.dev/agent" || signer == "tripod.dev/guard") {
			err = fmt.Errorf("no condition")
		}
		return err
	})
	approved := slices.ContainsFunc(got.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool {
		return c.Type == certificatesv1.CertificateApproved
	})
	if approved || len(got.Status.Certificate) > 0 {
		t.Errorf("%s was approved: %+v", name, got.Status.Conditions)
	}
}

func signingRequest(t *testing.T, name string, groups []string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name, Organization: groups}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// tryRaft: the ports among members hang up on an agent.
func (h *running) tryRaft(t *testing.T, agent tls.Certificate) (attempts int) {
	for _, protocol := range [][]string{nil, {"h2"}, {"tripod-raft/1"}, {"tripod-tunnel/1"}, {"tripod-join/1"}} {
		attempts++
		dialer := &tls.Dialer{Config: h.tls(protocol, agent)}
		conn, err := dialer.DialContext(t.Context(), "tcp", h.at(hub.RaftPort))
		if err != nil {
			continue
		}
		// TLS 1.3: the client learns of the refusal when it reads.
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Errorf("the Raft port speaks %v with an agent", protocol)
		}
		_ = conn.Close()
	}
	return attempts
}
