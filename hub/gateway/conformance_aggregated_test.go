package gateway

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	aggregator "k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset"

	"tripod.dev/tripod/test/authority"
	"tripod.dev/tripod/test/freeport"
	"tripod.dev/tripod/test/multikind/kubeapi"
)

// frontProxy are the flags with which an API server speaks for its callers to
// aggregated API servers.
func frontProxy(t *testing.T) []string {
	t.Helper()
	ca := authority.New(t, "front-proxy-ca")
	dir := t.TempDir()
	ca.Write(t, dir, ca.Issue(t, "front-proxy"))
	return []string{
		"--requestheader-client-ca-file", filepath.Join(dir, "ca.crt"), "--requestheader-allowed-names", "front-proxy",
		"--requestheader-username-headers", "X-Remote-User", "--requestheader-group-headers", "X-Remote-Group",
		"--requestheader-extra-headers-prefix", "X-Remote-Extra-",
		"--proxy-client-cert-file", filepath.Join(dir, "tls.crt"), "--proxy-client-key-file", filepath.Join(dir, "tls.key"),
	}
}

// runAggregated serves upstream's sample of an aggregated API behind the rig's API
// server. It returns the audit log of the sample.
func (r *rig) runAggregated() (log string) {
	t := r.t
	t.Helper()
	dir := t.TempDir()
	kubeconfig, policy := filepath.Join(dir, "kubeconfig"), filepath.Join(dir, "policy.yaml")
	way := clientcmdapi.NewConfig()
	way.Clusters["c"] = &clientcmdapi.Cluster{Server: r.config.Host, InsecureSkipTLSVerify: true}
	way.AuthInfos["u"] = &clientcmdapi.AuthInfo{Token: r.config.BearerToken}
	way.Contexts["x"], way.CurrentContext = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}, "x"
	if err := clientcmd.WriteToFile(*way, kubeconfig); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(policy, []byte(`{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": [{"level": "Metadata"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	port := freeport.Addresses(t, 1)[0]
	_, port, err := net.SplitHostPort(port)
	if err != nil {
		t.Fatal(err)
	}
	log = filepath.Join(dir, "audit.log")
	kubeapi.Run(t, theirs(t, "sample-apiserver", "k8s.io/sample-apiserver"), "--etcd-servers", kubeapi.Etcd(t),
		"--bind-address", "127.0.0.1", "--secure-port", port, "--cert-dir", filepath.Join(dir, "certs"),
		"--kubeconfig", kubeconfig, "--authentication-kubeconfig", kubeconfig, "--authorization-kubeconfig", kubeconfig,
		"--audit-policy-file", policy, "--audit-log-path", log)
	r.register(port)
	return log
}

// register makes the APIService; what is behind its Service is found without a
// network of services, by name.
func (r *rig) register(port string) {
	t := r.t
	t.Helper()
	var number int32
	if _, err := fmt.Sscan(port, &number); err != nil {
		t.Fatal(err)
	}
	if _, err := r.direct.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "wardle"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "api"}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "localhost"}}
	if _, err := r.direct.CoreV1().Services("wardle").Create(t.Context(), service, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	api := &apiregistrationv1.APIService{ObjectMeta: metav1.ObjectMeta{Name: "v1alpha1.wardle.example.com"}, Spec: apiregistrationv1.APIServiceSpec{
		Group: "wardle.example.com", Version: "v1alpha1", GroupPriorityMinimum: 1000, VersionPriority: 15, InsecureSkipTLSVerify: true,
		Service: &apiregistrationv1.ServiceReference{Namespace: "wardle", Name: "api", Port: &number},
	}}
	if _, err := aggregator.NewForConfigOrDie(r.config).ApiregistrationV1().APIServices().Create(t.Context(), api, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

const flunder = `{"apiVersion":"wardle.example.com/v1alpha1","kind":"Flunder","metadata":{"name":"one","labels":{"a":"b"}},"spec":{"reference":"x"}}`

// aggregated asks for objects that another server behind the cluster's API server
// serves, and looks into that server's log for who asked.
func (c *caseOf) aggregated(t *testing.T) {
	eventually(t, "the aggregated API is found", func() string {
		if _, err := c.client().Discovery().ServerResourcesForGroupVersion("wardle.example.com/v1alpha1"); err != nil {
			api, _ := aggregator.NewForConfigOrDie(c.rig.config).ApiregistrationV1().APIServices().Get(t.Context(), "v1alpha1.wardle.example.com", metav1.GetOptions{})
			return fmt.Sprint(err, " ", api.Status.Conditions)
		}
		return ""
	})
	if got := c.kubectl(t, nil, "", "api-resources", "-o", "name"); !strings.Contains(got, "flunders.wardle.example.com\n") {
		t.Errorf("discovery does not list it:\n%s", got)
	}
	c.kubectl(t, nil, flunder, "create", "-f", "-")
	c.kubectl(t, nil, strings.Replace(flunder, `"x"`, `"y"`, 1), "apply", "--server-side", "--force-conflicts", "-f", "-")
	if got := c.kubectl(t, nil, "", "get", "flunders", "-l", "a=b", "-o", "jsonpath={.items[*].spec.reference}"); got != "y" {
		t.Errorf("the flunder refers to %q, want y", got)
	}
	c.kubectl(t, nil, "", "wait", "flunder/one", "--for=jsonpath={.spec.reference}=y", "--timeout=30s")
	c.kubectl(t, nil, "", "delete", "flunder", "one")

	log, err := os.Open(c.rig.aggregatedLog)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	verbs := map[string]bool{}
	lines := bufio.NewScanner(log)
	for lines.Buffer(nil, 1<<20); lines.Scan(); {
		var event auditv1.Event
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			t.Fatal(err)
		}
		if event.ObjectRef == nil || event.ObjectRef.Resource != "flunders" || event.ObjectRef.Namespace != c.namespace {
			continue
		}
		verbs[event.Verb] = true
		if event.User.Username != "ann" || fmt.Sprint(event.User.Extra["example.test/ticket"]) != "[T-1]" {
			t.Errorf("%s came to the aggregated server from %+v, want ann with her ticket", event.Verb, event.User)
		}
	}
	for _, verb := range []string{"create", "patch", "list", "watch", "delete"} {
		if !verbs[verb] {
			t.Errorf("the aggregated server has not seen %s, only %v", verb, verbs)
		}
	}
}
