package gateway

import (
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/endpoints/request"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// TestSSRFNoAddressThatIsNoClusters: Cluster.access must not make the hub ask what
// only the hub can reach.
func TestSSRFNoAddressThatIsNoClusters(t *testing.T) {
	own := func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("10.1.0.1")} }
	tests := map[string]struct {
		allow   string
		refused []string
		reached []string
	}{
		"without a list": {
			refused: []string{
				"127.0.0.1:6443", "127.9.9.9:443", "[::1]:443", "[::ffff:127.0.0.1]:443", "0.0.0.0:443", "0.1.2.3:443", "[::]:443",
				"169.254.169.254:443", "[::ffff:169.254.169.254]:443", "169.254.1.1:443", "[fe80::1]:443", "[fe80::1%eth0]:443",
				"[fd00:ec2::254]:443", "100.100.100.200:443", "168.63.129.16:443", "192.0.0.192:443",
				"224.0.0.1:443", "[ff02::1]:443", "255.255.255.255:443",
				"[64:ff9b::a9fe:a9fe]:443", "[64:ff9b::7f00:1]:443", "[2002:a9fe:a9fe::1]:443", "[2002:7f00:1::]:443",
				"10.1.0.1:2379", "10.1.0.1:6443", "10.1.0.1:6444", "10.1.0.1:6445", "[::ffff:10.1.0.1]:2379", "[64:ff9b::a01:1]:2379",
			},
			reached: []string{"10.1.0.2:6443", "10.1.0.1:16443", "192.168.1.1:6443", "203.0.113.7:443", "[2001:db8::1]:6443", "[fd00::1]:6443"},
		},
		"with a list": {
			allow:   "10.2.0.0/16",
			refused: []string{"10.1.0.2:6443", "203.0.113.7:443", "169.254.169.254:443", "127.0.0.1:443"},
			reached: []string{"10.2.3.4:6443", "[::ffff:10.2.3.4]:6443"},
		},
		"with a list that holds the hub": {
			allow: "10.0.0.0/8", refused: []string{"10.1.0.1:2379"}, reached: []string{"10.1.0.1:443"},
		},
		"with a list that holds loopback": {
			allow: "127.0.0.0/8", refused: []string{"[::1]:443"}, reached: []string{"127.0.0.1:443"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			reach := Reach{Own: own, OwnPorts: []uint16{6443, 6444, 6445, 2379}}
			if test.allow != "" {
				reach.Allow = []netip.Prefix{netip.MustParsePrefix(test.allow)}
			}
			for _, address := range test.refused {
				if reach.refusal(netip.MustParseAddrPort(address)) == nil {
					t.Errorf("%s is reached", address)
				}
			}
			for _, address := range test.reached {
				if err := reach.refusal(netip.MustParseAddrPort(address)); err != nil {
					t.Errorf("%s is refused: %v", address, err)
				}
			}
		})
	}
}

// TestSSRFANameIsJudgedByWhereItLeads: the address is judged when it is dialed, so a
// name that leads to loopback is no way around, and nothing is sent there.
func TestSSRFANameIsJudgedByWhereItLeads(t *testing.T) {
	asked := false
	inside := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked = true
		_, _ = io.WriteString(w, "inside")
	}))
	t.Cleanup(inside.Close)
	_, port, err := net.SplitHostPort(inside.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	direct := accepted("north-1")
	direct.Spec.Access = v1alpha1.ClusterAccess{
		Mode: v1alpha1.AccessDirect, Server: "https://localhost:" + port,
		CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: inside.Certificate().Raw}),
	}
	get := func(reach Reach) (int, string) {
		routes, err := New(Config{
			Dialer: &member{}, Clusters: clusters{"north-1": direct}, Fleet: http.NotFoundHandler(), Reach: reach,
			ClientCertificate: func() (*tls.Certificate, error) { return &tls.Certificate{}, nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		defer routes.Close()
		answer := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "/clusters/north-1/api", nil)
		routes.Handler(http.NotFoundHandler()).ServeHTTP(answer, r.WithContext(request.WithUser(r.Context(), ann)))
		var status metav1.Status
		_ = json.Unmarshal(answer.Body.Bytes(), &status) // some answers are none
		return answer.Code, status.Message
	}
	code, message := get(Reach{})
	if code != http.StatusServiceUnavailable || !strings.Contains(message, "directAccess.allow") || asked {
		t.Errorf("got %d %q; the server inside was asked: %t", code, message, asked)
	}
	// The test can fail: with loopback on the list the name is dialed (and TLS says
	// that the certificate is for another name).
	if code, message = get(Reach{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}}); code == http.StatusServiceUnavailable {
		t.Errorf("got %d %q", code, message)
	}
}
