package center

import (
	"fmt"
	"strings"

	"tripod.dev/tripod/test/multikind/machine"
)

// Folders of a cluster inside its machine.
const (
	configDir = "/var/lib/kubernetes"
	pkiDir    = configDir + "/pki"
)

// ContainerdSocket is containerd's address inside a machine.
const ContainerdSocket = "/run/containerd/containerd.sock"

// Names of a center's processes, as faults and status use them.
const (
	Etcd              = "etcd"
	APIServer         = "apiserver"
	ControllerManager = "controller-manager"
	Scheduler         = "scheduler"
	Containerd        = "containerd"
	Kubelet           = "kubelet"
	Proxy             = "proxy"
	Hub               = "hub"
)

// ControlPlane is what must run first in a center, in start order.
func (p Plan) ControlPlane() []machine.Process {
	return []machine.Process{p.store(), p.apiServer()}
}

// Controllers need the API server to be ready.
func (p Plan) Controllers() []machine.Process {
	return []machine.Process{p.controllerManager(), p.scheduler()}
}

// Runtime is what runs containers.
func (p Plan) Runtime() machine.Process {
	return machine.Process{
		Name: Containerd,
		Argv: []string{"/usr/bin/containerd", "--config", configDir + "/containerd.toml"},
	}
}

// Node makes the machine a node of its cluster; it needs the runtime.
func (p Plan) Node() []machine.Process {
	return []machine.Process{
		kubernode(Kubelet, "kubelet",
			"--config="+configDir+"/kubelet.yaml",
			"--kubeconfig="+configDir+"/kubelet.kubeconfig",
			"--hostname-override="+p.Name,
			"--node-ip="+p.Address.String(),
			"--node-labels=topology.kubernetes.io/zone="+p.Name+",topology.kubernetes.io/region="+p.Region,
		),
		kubernode(Proxy, "kube-proxy", "--config="+configDir+"/kube-proxy.yaml"),
	}
}

func (p Plan) etcd() machine.Process {
	client := fmt.Sprintf("http://127.0.0.1:%d", EtcdPort)
	peer := fmt.Sprintf("http://127.0.0.1:%d", EtcdPeerPort)
	return kubernode(Etcd, "etcd",
		"--name="+p.Name,
		"--data-dir=/var/lib/etcd",
		"--listen-client-urls="+client,
		"--advertise-client-urls="+client,
		"--listen-peer-urls="+peer,
		"--initial-advertise-peer-urls="+peer,
		"--initial-cluster="+p.Name+"="+peer,
		"--log-level=warn",
	)
}

func (p Plan) apiServer() machine.Process {
	pair := func(name string) (string, string) { return pkiDir + "/" + name + ".crt", pkiDir + "/" + name + ".key" }
	serving, servingKey := pair("apiserver")
	kubeletClient, kubeletClientKey := pair("apiserver-kubelet-client")
	proxyClient, proxyClientKey := pair("front-proxy-client")
	return kubernode(APIServer, "kube-apiserver", append(p.storeFlags(),
		fmt.Sprintf("--secure-port=%d", APIServerPort),
		"--advertise-address="+p.Address.String(),
		"--service-cluster-ip-range="+p.ServiceCIDR.String(),
		"--client-ca-file="+pkiDir+"/ca.crt",
		"--tls-cert-file="+serving,
		"--tls-private-key-file="+servingKey,
		"--kubelet-certificate-authority="+pkiDir+"/ca.crt",
		"--kubelet-client-certificate="+kubeletClient,
		"--kubelet-client-key="+kubeletClientKey,
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file="+pkiDir+"/service-account.pub",
		"--service-account-signing-key-file="+pkiDir+"/service-account.key",
		"--requestheader-client-ca-file="+pkiDir+"/front-proxy-ca.crt",
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-username-headers=X-Remote-User",
		"--proxy-client-cert-file="+proxyClient,
		"--proxy-client-key-file="+proxyClientKey,
		"--enable-aggregator-routing=true",
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
		"--profiling=false",
	)...)
}

func (p Plan) controllerManager() machine.Process {
	kubeconfig := configDir + "/controller-manager.kubeconfig"
	return kubernode(ControllerManager, "kube-controller-manager",
		"--kubeconfig="+kubeconfig,
		"--authentication-kubeconfig="+kubeconfig,
		"--authorization-kubeconfig="+kubeconfig,
		"--bind-address="+p.Address.String(),
		"--leader-elect=false",
		"--use-service-account-credentials=true",
		"--root-ca-file="+pkiDir+"/ca.crt",
		"--service-account-private-key-file="+pkiDir+"/service-account.key",
		"--cluster-signing-cert-file="+pkiDir+"/ca.crt",
		"--cluster-signing-key-file="+pkiDir+"/ca.key",
		"--cluster-cidr="+p.PodCIDR.String(),
		"--allocate-node-cidrs=false",
		// Claims get a folder of the center's disk below /tmp/hostpath_pv.
		"--enable-hostpath-provisioner=true",
		"--profiling=false",
	)
}

func (p Plan) scheduler() machine.Process {
	kubeconfig := configDir + "/scheduler.kubeconfig"
	return kubernode(Scheduler, "kube-scheduler",
		"--kubeconfig="+kubeconfig,
		"--authentication-kubeconfig="+kubeconfig,
		"--authorization-kubeconfig="+kubeconfig,
		"--bind-address="+p.Address.String(),
		"--leader-elect=false",
		"--profiling=false",
	)
}

func kubernode(name, program string, arguments ...string) machine.Process {
	return machine.Process{Name: name, Argv: append([]string{machine.BinDir + "/kubernode", program}, arguments...)}
}

// HealthURLs are addresses that answer 200, without a certificate, when the process
// of that name works.
func (p Plan) HealthURLs() map[string]string {
	url := func(port int) string { return fmt.Sprintf("https://%s:%d/healthz", p.Address, port) }
	return map[string]string{
		ControllerManager: url(10257),
		Scheduler:         url(10259),
		Proxy:             strings.Replace(url(10256), "https", "http", 1),
	}
}
