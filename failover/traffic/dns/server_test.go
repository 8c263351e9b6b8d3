package dns

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/failover/traffic"
	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/test/multikind/kubeapi"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("k8s.io/klog/v2.(*flushDaemon).run.func1"))
}

// serve runs a server on loopback for the test.
func serve(t *testing.T, config *rest.Config) *Server {
	t.Helper()
	s, err := New(Config{
		Listen: "127.0.0.1:0", Zones: []string{"example.test", "deep.example.test"}, RESTConfig: config,
		Nameservers: []Nameserver{{"hub-north-1", "10.0.0.1"}, {"hub-south-1", "fd00::1"}},
		Registerer:  prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// silent is an API server that never answers a list.
func silent(t *testing.T) *rest.Config {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	t.Cleanup(server.Close)
	return &rest.Config{Host: server.URL}
}

func ask(t *testing.T, s *Server, network, name string, kind uint16) *dns.Msg {
	t.Helper()
	query := new(dns.Msg).SetQuestion(name, kind)
	c := &dns.Client{Net: network, Timeout: 5 * time.Second}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	reply, _, err := c.ExchangeContext(ctx, query, s.Addr())
	if err != nil {
		t.Fatalf("ask %s over %s: %v", name, network, err)
	}
	return reply
}

// brief writes a reply as its code and its records without white space runs.
func brief(m *dns.Msg) []string {
	out := []string{dns.RcodeToString[m.Rcode]}
	if m.Authoritative {
		out[0] += " authoritative"
	}
	add := func(section string, records []dns.RR) {
		var lines []string
		for _, r := range records {
			if soa, ok := r.(*dns.SOA); ok {
				soa.Serial = 0
			}
			lines = append(lines, section+strings.Join(strings.Fields(r.String()), " "))
		}
		slices.Sort(lines)
		out = append(out, lines...)
	}
	add("", m.Answer)
	add("authority: ", m.Ns)
	add("extra: ", m.Extra)
	return out
}

func ledger(epoch int64, addresses ...string) traffic.Route {
	r := traffic.Route{Service: "pay/ledger", UID: "u", Host: "ledger.pay.example.test", Epoch: epoch, TTL: time.Second}
	for i, a := range addresses {
		r.Endpoints = append(r.Endpoints, traffic.Endpoint{Cluster: fmt.Sprintf("c%d", i+1), Address: a, Port: 5432, Weight: 1})
	}
	return r
}

func TestAnswers(t *testing.T) {
	s := serve(t, silent(t))
	ctx := t.Context()
	for _, r := range []traffic.Route{
		ledger(1, "10.210.0.11", "fd00::12"),
		{Service: "pay/undecided", Host: "undecided.example.test", TTL: time.Second},
		{Service: "pay/elsewhere", Host: "ledger.other.test", Epoch: 1},
	} {
		if err := s.Table().Switch(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	const soa = "example.test. 1 IN SOA hub-north-1.example.test. hostmaster.example.test. 0 60 10 3600 1"
	before := brief(ask(t, s, "udp", "ledger.pay.example.test.", dns.TypeA))
	if diff := cmp.Diff([]string{"SERVFAIL"}, before); diff != "" {
		t.Errorf("before the first read (-want +got):\n%s", diff)
	}
	s.Table().Ready()
	tests := map[string]struct {
		name string
		kind uint16
		want []string
	}{
		"an address": {"ledger.pay.example.test.", dns.TypeA, []string{
			"NOERROR authoritative", "ledger.pay.example.test. 1 IN A 10.210.0.11",
		}},
		"an IPv6 address, asked in another case": {"LEDGER.pay.Example.test.", dns.TypeAAAA, []string{
			"NOERROR authoritative", "LEDGER.pay.Example.test. 1 IN AAAA fd00::12",
		}},
		"the service records of a host": {"_postgresql._tcp.ledger.pay.example.test.", dns.TypeSRV, []string{
			"NOERROR authoritative",
			"_postgresql._tcp.ledger.pay.example.test. 1 IN SRV 0 1 5432 c1.ledger.pay.example.test.",
			"_postgresql._tcp.ledger.pay.example.test. 1 IN SRV 0 1 5432 c2.ledger.pay.example.test.",
			"extra: c1.ledger.pay.example.test. 1 IN A 10.210.0.11",
			"extra: c2.ledger.pay.example.test. 1 IN AAAA fd00::12",
		}},
		"the target of a service record": {"c1.ledger.pay.example.test.", dns.TypeA, []string{
			"NOERROR authoritative", "c1.ledger.pay.example.test. 1 IN A 10.210.0.11",
		}},
		"a cluster to which the name does not lead": {"c9.ledger.pay.example.test.", dns.TypeA, []string{
			"NXDOMAIN authoritative", "authority: " + soa,
		}},
		"a name whose route was never decided": {"undecided.example.test.", dns.TypeA, []string{
			"NOERROR authoritative", "authority: " + soa,
		}},
		"a record type that there is none of": {"ledger.pay.example.test.", dns.TypeMX, []string{
			"NOERROR authoritative", "authority: " + soa,
		}},
		"a name above a host": {"pay.example.test.", dns.TypeA, []string{
			"NOERROR authoritative", "authority: " + soa,
		}},
		"a name that does not exist": {"nothing.example.test.", dns.TypeA, []string{
			"NXDOMAIN authoritative", "authority: " + soa,
		}},
		"the closest zone has the authority": {"x.deep.example.test.", dns.TypeA, []string{
			"NXDOMAIN authoritative", "authority: deep." + strings.ReplaceAll(strings.ReplaceAll(soa, " hub-north-1.", " hub-north-1.deep."), "hostmaster.", "hostmaster.deep."),
		}},
		"a name outside the zones, also of a global service": {"ledger.other.test.", dns.TypeA, []string{"REFUSED"}},
		"the zone's authority": {"example.test.", dns.TypeSOA, []string{
			"NOERROR authoritative", soa,
		}},
		"the zone's name servers": {"example.test.", dns.TypeNS, []string{
			"NOERROR authoritative", "example.test. 3600 IN NS hub-north-1.example.test.", "example.test. 3600 IN NS hub-south-1.example.test.",
			"extra: hub-north-1.example.test. 3600 IN A 10.0.0.1", "extra: hub-south-1.example.test. 3600 IN AAAA fd00::1",
		}},
		"a name server": {"hub-south-1.example.test.", dns.TypeAAAA, []string{
			"NOERROR authoritative", "hub-south-1.example.test. 1 IN AAAA fd00::1",
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for _, network := range []string{"udp", "tcp"} {
				if diff := cmp.Diff(test.want, brief(ask(t, s, network, test.name, test.kind))); diff != "" {
					t.Errorf("over %s (-want +got):\n%s", network, diff)
				}
			}
		})
	}
	if n := testutil.ToFloat64(s.metrics.queries.WithLabelValues("A", "REFUSED")); n != 2 {
		t.Errorf("%v refused queries are counted, want 2", n)
	}
}

func TestALargeAnswerIsTruncatedOverUDPAndWholeOverTCP(t *testing.T) {
	s := serve(t, silent(t))
	route := ledger(1)
	for i := range 64 {
		route.Endpoints = append(route.Endpoints, traffic.Endpoint{Cluster: fmt.Sprint("c", i), Address: fmt.Sprintf("10.0.0.%d", i+1), Weight: 1})
	}
	if err := s.Table().Switch(t.Context(), route); err != nil {
		t.Fatal(err)
	}
	s.Table().Ready()
	m := ask(t, s, "udp", "ledger.pay.example.test.", dns.TypeA)
	m.Compress = true
	if !m.Truncated || m.Len() > dns.MinMsgSize || len(m.Answer) == 0 {
		t.Errorf("truncated %t, %d bytes, %d answers", m.Truncated, m.Len(), len(m.Answer))
	}
	if m := ask(t, s, "tcp", "ledger.pay.example.test.", dns.TypeA); m.Truncated || len(m.Answer) != 64 {
		t.Errorf("truncated %t, %d answers", m.Truncated, len(m.Answer))
	}
}

func TestTable(t *testing.T) {
	ctx := t.Context()
	where := func(tb *Table) []string {
		var out []string
		for _, e := range tb.current.Load().hosts["ledger.pay.example.test."].Endpoints {
			out = append(out, e.Address)
		}
		return out
	}
	t.Run("an older epoch is refused and changes nothing", func(t *testing.T) {
		tb := NewTable()
		_ = tb.Switch(ctx, ledger(7, "10.0.0.2"))
		err := tb.Switch(ctx, ledger(6, "10.0.0.1"))
		if !errors.Is(err, traffic.ErrOlderEpoch) || !slices.Equal(where(tb), []string{"10.0.0.2"}) {
			t.Errorf("%v; leads to %v", err, where(tb))
		}
	})
	t.Run("a service made anew starts its epochs anew", func(t *testing.T) {
		tb := NewTable()
		_ = tb.Switch(ctx, ledger(7, "10.0.0.2"))
		again := ledger(1, "10.0.0.1")
		again.UID = "v"
		if err := tb.Switch(ctx, again); err != nil || !slices.Equal(where(tb), []string{"10.0.0.1"}) {
			t.Errorf("%v; leads to %v", err, where(tb))
		}
	})
	t.Run("of two services with one host the older has it, in any order", func(t *testing.T) {
		first, second := ledger(1, "10.0.0.1"), ledger(9, "10.0.0.9")
		second.Service, second.Created = "evil/ledger", time.Unix(100, 0)
		for _, order := range [][]traffic.Route{{first, second}, {second, first}} {
			tb := NewTable()
			for _, r := range order {
				_ = tb.Switch(ctx, r)
			}
			if !slices.Equal(where(tb), []string{"10.0.0.1"}) {
				t.Errorf("leads to %v", where(tb))
			}
		}
	})
	t.Run("an address that is none is refused", func(t *testing.T) {
		if err := NewTable().Switch(ctx, ledger(1, "ledger.internal")); err == nil {
			t.Error("taken")
		}
	})
}

func TestOrderFollowsTheWeights(t *testing.T) {
	first := map[string]int{}
	for range 4000 {
		order := ordered([]traffic.Endpoint{{Address: "a", Weight: 3}, {Address: "b", Weight: 1}, {Address: "c", Weight: 0}})
		if len(order) != 3 || order[2] != "c" {
			t.Fatalf("order %v", order)
		}
		first[order[0]]++
	}
	if first["a"] < 2800 || first["a"] > 3200 {
		t.Errorf("weight 3 of 4 is first in %d of 4000", first["a"])
	}
}

// A committed switch is seen by a resolver that keeps answers as long as it is
// told to, a second. How soon the server answers anew is logged here; the demo
// measures it as routeSeconds.
func TestASwitchIsSeenByAResolver(t *testing.T) {
	config := kubeapi.Start(t)
	kubeapi.InstallKinds(t, config)
	scheme := runtime.NewScheme()
	_, _ = v1alpha1.AddToScheme(scheme), corev1.AddToScheme(scheme)
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, config)
	g := &v1alpha1.GlobalService{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "ledger"},
		Spec: v1alpha1.GlobalServiceSpec{Host: "ledger.pay.example.test", Mode: v1alpha1.ActiveOnly, TTLSeconds: 1, Endpoints: []v1alpha1.ServiceEndpoint{
			{Cluster: "north-1", Address: "10.210.0.11", Weight: 1}, {Cluster: "north-2", Address: "10.210.0.12", Weight: 1},
		}},
	}
	if err := c.Create(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	leadsTo := func(want string) time.Duration {
		t.Helper()
		start := time.Now()
		for time.Since(start) < 10*time.Second {
			m := ask(t, s, "udp", "ledger.pay.example.test.", dns.TypeA)
			if len(m.Answer) == 1 && m.Answer[0].(*dns.A).A.String() == want {
				if ttl := m.Answer[0].Header().Ttl; ttl != 1 {
					t.Errorf("a resolver may keep the answer for %d s", ttl)
				}
				return time.Since(start)
			}
		}
		t.Fatalf("the name does not lead to %s", want)
		return 0
	}
	for epoch, address := range []string{"10.210.0.11", "10.210.0.12", "10.210.0.11"} {
		g.Status = v1alpha1.GlobalServiceStatus{Epoch: int64(epoch + 1), Answers: []string{address}}
		if err := c.Status().Update(t.Context(), g); err != nil {
			t.Fatal(err)
		}
		t.Logf("epoch %d is seen after %s", epoch+1, leadsTo(address))
	}
	if err := c.Delete(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); ask(t, s, "udp", "ledger.pay.example.test.", dns.TypeA).Rcode != dns.RcodeNameError; {
		if time.Since(start) > 5*time.Second {
			t.Fatal("the name of a deleted service still answers")
		}
	}
}
