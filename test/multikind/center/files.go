package center

import (
	"bytes"
	_ "embed"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"text/template"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"tripod.dev/tripod/test/multikind/center/pki"
)

//go:embed containerd.toml
var containerdConfig string

//go:embed kubelet.yaml
var kubeletConfig string

//go:embed kube-proxy.yaml
var proxyConfig string

//go:embed network.conflist
var networkConfig string

//go:embed base.yaml
var baseManifests string

//go:embed machine.nft
var packetRules string

// Prepare writes the certificates and configuration of the center below lib, the host
// folder that its machine sees as /var/lib. Certificates already there are kept. It
// returns the administrator's kubeconfig for the cluster.
func (p Plan) Prepare(lib string) (*api.Config, error) {
	folder := filepath.Join(lib, "kubernetes")
	ca, err := p.certificates(filepath.Join(folder, "pki"))
	if err != nil {
		return nil, fmt.Errorf("make certificates of %s: %w", p.Name, err)
	}
	files, err := p.render()
	if err != nil {
		return nil, err
	}
	for name, user := range users(p) {
		server := fmt.Sprintf("https://127.0.0.1:%d", APIServerPort)
		config, err := kubeconfig(ca, name, server, user)
		if err != nil {
			return nil, err
		}
		if files[name+".kubeconfig"], err = clientcmd.Write(*config); err != nil {
			return nil, fmt.Errorf("encode kubeconfig %s: %w", name, err)
		}
	}
	for name, content := range files {
		path := filepath.Join(folder, name)
		// A component may watch its file and end when it is written, even with the same content.
		if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return nil, fmt.Errorf("make folder: %w", err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return nil, fmt.Errorf("write configuration of %s: %w", p.Name, err)
		}
	}
	return kubeconfig(ca, "admin", p.APIServer(), pki.Request{
		CommonName: "multikind:admin", Organizations: []string{"system:masters"},
	})
}

// PacketRules are the nft rules of the machine: pods leave it under its address.
func (p Plan) PacketRules() (string, error) {
	content, err := execute("machine.nft", packetRules, p)
	return string(content), err
}

// BaseManifests are the objects of every cluster. Names in DNSZone resolve at hubs, the
// centers with a hub member, nearest first.
func (p Plan) BaseManifests(hubs []Plan) ([]byte, error) {
	data := struct {
		Plan   Plan
		Zone   string
		HubDNS []string
	}{Plan: p, Zone: DNSZone}
	for _, distance := range []func(Plan) bool{
		func(hub Plan) bool { return hub.Name == p.Name },
		func(hub Plan) bool { return hub.Name != p.Name && hub.Region == p.Region },
		func(hub Plan) bool { return hub.Region != p.Region },
	} {
		for _, hub := range hubs {
			if distance(hub) {
				data.HubDNS = append(data.HubDNS, hub.Address.String())
			}
		}
	}
	return execute("base.yaml", baseManifests, data)
}

func (p Plan) render() (map[string][]byte, error) {
	files := map[string][]byte{}
	for name, text := range map[string]string{
		"containerd.toml":        containerdConfig,
		"kubelet.yaml":           kubeletConfig,
		"kube-proxy.yaml":        proxyConfig,
		"cni/10-tripod.conflist": networkConfig,
		"resolv.conf":            "nameserver {{.Address}}\n",
	} {
		content, err := execute(name, text, p)
		if err != nil {
			return nil, err
		}
		files[name] = content
	}
	if p.HubStore {
		content, err := p.storeConfig()
		if err != nil {
			return nil, err
		}
		files[storeFile] = content
	}
	return files, nil
}

func execute(name, text string, data any) ([]byte, error) {
	parsed, err := template.New(name).Option("missingkey=error").Parse(text)
	if err != nil {
		return nil, fmt.Errorf("parse template %s: %w", name, err)
	}
	var out bytes.Buffer
	if err := parsed.Execute(&out, data); err != nil {
		return nil, fmt.Errorf("render %s: %w", name, err)
	}
	return out.Bytes(), nil
}

func (p Plan) certificates(folder string) (*pki.Authority, error) {
	ca, err := pki.OpenAuthority(folder, "ca")
	if err != nil {
		return nil, err
	}
	frontProxy, err := pki.OpenAuthority(folder, "front-proxy-ca")
	if err != nil {
		return nil, err
	}
	if _, err := frontProxy.Issue("front-proxy-client", pki.Request{CommonName: "front-proxy-client"}); err != nil {
		return nil, err
	}
	if err := pki.SigningKey(folder, "service-account"); err != nil {
		return nil, err
	}
	requests := map[string]pki.Request{
		"apiserver": {CommonName: "kube-apiserver", Hosts: []string{
			"127.0.0.1", "localhost", p.Address.String(), p.KubernetesAddress().String(), p.Name,
			"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
		}},
		"apiserver-kubelet-client": {CommonName: "kube-apiserver-kubelet-client", Organizations: []string{"system:masters"}},
		"kubelet-serving": {CommonName: "system:node:" + p.Name, Organizations: []string{"system:nodes"},
			Hosts: []string{p.Name, p.Address.String()}},
	}
	maps.Copy(requests, p.storeCertificates())
	for name, request := range requests {
		if _, err := ca.Issue(name, request); err != nil {
			return nil, err
		}
	}
	return ca, nil
}

// users are the components with a kubeconfig of their own.
func users(p Plan) map[string]pki.Request {
	return map[string]pki.Request{
		"controller-manager": {CommonName: "system:kube-controller-manager"},
		"scheduler":          {CommonName: "system:kube-scheduler"},
		"kubelet":            {CommonName: "system:node:" + p.Name, Organizations: []string{"system:nodes"}},
		"proxy":              {CommonName: "system:kube-proxy"},
	}
}

func kubeconfig(ca *pki.Authority, user, server string, request pki.Request) (*api.Config, error) {
	pair, err := ca.Issue(user, request)
	if err != nil {
		return nil, err
	}
	config := api.NewConfig()
	config.Clusters["cluster"] = &api.Cluster{Server: server, CertificateAuthorityData: ca.Certificate}
	config.AuthInfos[user] = &api.AuthInfo{ClientCertificateData: pair.Certificate, ClientKeyData: pair.Key}
	config.Contexts["cluster"] = &api.Context{Cluster: "cluster", AuthInfo: user}
	config.CurrentContext = "cluster"
	return config, nil
}
