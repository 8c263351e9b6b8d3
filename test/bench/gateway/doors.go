package gateway

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/deploy/agent"
	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/hub/identity"
	"tripod.dev/tripod/test/bench/api"
	"tripod.dev/tripod/test/freeport"
	"tripod.dev/tripod/test/multikind/center/pki"
)

// person is who asks: known by a certificate, with rights by RBAC in the hub and in
// the cluster.
const person = "bench-person"

// door is a way to the cluster's API.
type door struct {
	name string
	base string
	http *http.Client
	// process carries it.
	process int
}

const object = "/api/v1/namespaces/default/configmaps/read"

func (d *door) ask(ctx context.Context) error {
	return drain(get(ctx, d.http, d.base+object))
}

// doors to one API server, all open.
type doors struct {
	hub, cluster                   *api.Server
	direct, tunnel, bare, kubectl  *door
	server                         *door
	stops                          []func() error
	authority                      *pki.Authority
	servers                        api.Config
	roots                          []byte // of the hub
	apiRoots                       []byte
	person, agent, far, fromBehind pki.Pair
}

func (d *doors) close() error {
	var failed []error
	for _, stop := range d.stops {
		failed = append(failed, stop())
	}
	return errors.Join(failed...)
}

// openDoors starts the servers and what is in front of them.
func (c Config) openDoors(ctx context.Context) (d *doors, err error) {
	d = &doors{servers: api.Config{Plan: c.Plan, BinDir: c.BinDir, Folder: c.Folder, Duration: c.Duration}}
	for _, step := range []func(context.Context, Config) error{d.startHub, d.startCluster, d.allow, d.join, d.openFar, d.openKubectl} {
		if err := step(ctx, c); err != nil {
			return d, err
		}
	}
	user, err := tls.X509KeyPair(d.person.Certificate, d.person.Key)
	if err != nil {
		return d, fmt.Errorf("read the person's certificate: %w", err)
	}
	open := func(name, base string, roots []byte) *door {
		return &door{name: name, base: base, http: &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 64,
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{user}, RootCAs: pool(roots)}}}}
	}
	far := d.bare.process
	d.server = open("direct", d.cluster.Config.Host, d.apiRoots)
	d.direct = open("tripod", d.hub.Config.Host+"/clusters/direct", d.roots)
	d.tunnel = open("tripod", d.hub.Config.Host+"/clusters/tunnel", d.roots)
	d.bare = open("httputil.ReverseProxy", d.bare.base, d.roots)
	d.direct.process, d.tunnel.process, d.bare.process = d.hub.Process(), d.hub.Process(), far
	for _, one := range []*door{d.server, d.direct, d.tunnel, d.bare, d.kubectl} {
		if err := d.cluster.Await(ctx, one.ask); err != nil {
			return d, fmt.Errorf("%s at %s: %w", one.name, one.base, err)
		}
	}
	return d, nil
}

func (d *doors) startHub(ctx context.Context, c Config) (err error) {
	d.hub, err = api.StartHub(ctx, d.servers)
	if d.hub != nil {
		d.stops = append(d.stops, d.hub.Stop)
	}
	if err != nil {
		return err
	}
	d.roots = d.hub.Config.CAData
	if d.authority, err = hubAuthority(c.Folder); err != nil {
		return err
	}
	for into, request := range map[*pki.Pair]pki.Request{
		&d.person:     {CommonName: person},
		&d.agent:      {CommonName: identity.Agent("tunnel"), Organizations: []string{identity.OrganisationAgents}},
		&d.fromBehind: {CommonName: "bench-agent", Organizations: []string{identity.OrganisationMembers}},
		&d.far:        {CommonName: "bench-far", Hosts: []string{"127.0.0.1"}},
	} {
		if *into, err = d.authority.Issue(strings.ReplaceAll(request.CommonName, ":", "-"), request); err != nil {
			return err
		}
	}
	return nil
}

// hubAuthority is the hub's own: it vouches for everybody here.
func hubAuthority(folder string) (*pki.Authority, error) {
	of, to := filepath.Join(api.HubData(folder), "pki"), filepath.Join(folder, "people")
	certificate, err := os.ReadFile(filepath.Join(of, "ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("read the hub's authority: %w", err)
	}
	text, err := os.ReadFile(filepath.Join(of, "ca.key"))
	if err != nil {
		return nil, fmt.Errorf("read the hub's authority: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("the key of the hub's authority is not PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read the key of the hub's authority: %w", err)
	}
	elliptic, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("the key of the hub's authority is a %T, want an ECDSA key", key)
	}
	der, err := x509.MarshalECPrivateKey(elliptic)
	if err != nil {
		return nil, fmt.Errorf("encode the key of the hub's authority: %w", err)
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		return nil, fmt.Errorf("make %s: %w", to, err)
	}
	files := map[string][]byte{"ca.crt": certificate, "ca.key": pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(to, name), text, 0o600); err != nil {
			return nil, fmt.Errorf("copy the hub's authority: %w", err)
		}
	}
	return pki.OpenAuthority(to, "ca")
}

func (d *doors) startCluster(ctx context.Context, _ Config) (err error) {
	d.servers.Trusted = d.roots
	d.cluster, err = api.StartPeer(ctx, d.servers)
	if d.cluster != nil {
		d.stops = append(d.stops, d.cluster.Stop)
	}
	if err != nil {
		return err
	}
	if d.apiRoots, err = os.ReadFile(d.cluster.Config.CAFile); err != nil {
		return fmt.Errorf("read the cluster's authority: %w", err)
	}
	return nil
}

// allow gives the person and the hub their rights in the cluster, and the person its
// right in the hub.
func (d *doors) allow(ctx context.Context, _ Config) error {
	inCluster, err := kubernetes.NewForConfig(d.cluster.Config)
	if err != nil {
		return fmt.Errorf("make a client of the cluster: %w", err)
	}
	inHub, err := kubernetes.NewForConfig(d.hub.Config)
	if err != nil {
		return fmt.Errorf("make a client of the hub: %w", err)
	}
	read := corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "read"}, Data: map[string]string{"data": strings.Repeat("0123456789abcdef", 60)}}
	if _, err := inCluster.CoreV1().ConfigMaps("default").Create(ctx, &read, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("make the object that is read: %w", err)
	}
	passing, bound, err := agent.Role("gateway")
	if err != nil {
		return err
	}
	user := rbacv1.Subject{Kind: rbacv1.UserKind, Name: person, APIGroup: rbacv1.GroupName}
	return errors.Join(
		grant(ctx, inCluster, "reader", user, rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"get"}}),
		give(ctx, inCluster, passing, bound),
		grant(ctx, inHub, "passer", user, rbacv1.PolicyRule{APIGroups: []string{v1alpha1.GroupVersion.Group}, Resources: []string{"clusters/proxy"}, Verbs: []string{"get"}}),
	)
}

func grant(ctx context.Context, c kubernetes.Interface, name string, to rbacv1.Subject, rules ...rbacv1.PolicyRule) error {
	name = "bench-" + name
	return give(ctx, c, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules},
		&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, Subjects: []rbacv1.Subject{to},
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name}})
}

func give(ctx context.Context, c kubernetes.Interface, role *rbacv1.ClusterRole, binding *rbacv1.ClusterRoleBinding) error {
	if _, err := c.RbacV1().ClusterRoles().Create(ctx, role, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("make role %s: %w", role.Name, err)
	}
	if _, err := c.RbacV1().ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("bind role %s: %w", role.Name, err)
	}
	return nil
}

// join makes the cluster known to the hub twice: as one in mode Direct and as one in
// mode Tunnel.
func (d *doors) join(ctx context.Context, _ Config) error {
	scheme := runtime.NewScheme()
	c, err := client.New(d.hub.Config, client.Options{Scheme: scheme})
	if err = errors.Join(err, v1alpha1.AddToScheme(scheme)); err != nil {
		return fmt.Errorf("make a client of the hub: %w", err)
	}
	for name, access := range map[string]v1alpha1.ClusterAccess{
		"direct": {Mode: v1alpha1.AccessDirect, Server: d.cluster.Config.Host, CABundle: bytes.TrimSpace(d.apiRoots)},
		"tunnel": {Mode: v1alpha1.AccessTunnel},
	} {
		cluster := v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: v1alpha1.ClusterSpec{Region: "here", Center: "here", Access: access, Admission: v1alpha1.AdmissionAccepted}}
		if err := c.Create(ctx, &cluster); err != nil {
			return fmt.Errorf("make cluster %s in the hub: %w", name, err)
		}
	}
	return nil
}

// openFar runs the agent of the cluster in mode Tunnel, and the bare proxy.
func (d *doors) openFar(_ context.Context, c Config) error {
	ports, err := freeport.Find(1)
	if err != nil {
		return err
	}
	address := freeport.Address(ports[0])
	f := Far{Members: []string{api.HubSessions}, Agents: []Agent{{"tunnel", Pair(d.agent)}}, Roots: d.roots, Proxy: address, Server: Pair(d.far),
		API: &Credentials{Host: d.cluster.Config.Host, Roots: d.apiRoots, Pair: Pair(d.fromBehind)}}
	// The bare proxy asks as the person, the agent as itself, for the person.
	f.ProxyAs = &Credentials{Host: f.API.Host, Roots: d.apiRoots, Pair: Pair(d.person)}
	process, stop, err := f.start(c.Self, filepath.Join(c.Folder, "far.json"))
	if err != nil {
		return err
	}
	d.stops = append(d.stops, func() error { stop(); return nil })
	d.bare = &door{base: "https://" + address, process: process}
	return nil
}

// openKubectl runs `kubectl proxy` as the person, without TLS, as it is.
func (d *doors) openKubectl(_ context.Context, c Config) error {
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: d.cluster.Config.Host, CertificateAuthorityData: d.apiRoots}
	config.AuthInfos["p"] = &clientcmdapi.AuthInfo{ClientCertificateData: d.person.Certificate, ClientKeyData: d.person.Key}
	config.Contexts["x"], config.CurrentContext = &clientcmdapi.Context{Cluster: "c", AuthInfo: "p"}, "x"
	file := filepath.Join(c.Folder, "person.kubeconfig")
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	ports, err := freeport.Find(1)
	if err != nil {
		return err
	}
	d.kubectl = &door{name: "kubectl proxy", base: "http://" + freeport.Address(ports[0]), http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	return d.cluster.Run(c.Folder, filepath.Join(c.BinDir, "kubernode"), "kubectl", "proxy", "--kubeconfig", file, "--port", strconv.Itoa(ports[0]))
}
