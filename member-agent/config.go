package memberagent

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"time"

	"k8s.io/client-go/rest"

	"tripod.dev/tripod/hub/api/endpoint"
)

// Config describes one replica of a cluster's agent.
type Config struct {
	// Cluster is this cluster's name in the hub.
	Cluster string
	// Hub is host:port of every hub member's session listener, and HubAPI of
	// every member's Kubernetes API; HubAPI may be left out when the ports are
	// the usual ones.
	Hub    []string
	HubAPI []string
	// JoinTokenFile holds the join token; read only while there is no identity.
	JoinTokenFile string
	// Namespace is where the agent runs and keeps its identity and memory.
	Namespace string
	// Replica is this pod's name.
	Replica string
	Version string
	// GuardListen is where guards attach, HealthListen where health and metrics
	// are served; an empty HealthListen serves none.
	GuardListen  string
	HealthListen string
	// Drivers are the dataset drivers beside the agent: the path of each one's Unix
	// socket by its name.
	Drivers map[string]string
	// Replicas is HOST:PORT; the host resolves to every replica of this agent.
	Replicas string
	// RESTConfig reaches this cluster's own API server as the agent's service
	// account.
	RESTConfig *rest.Config
	// Election times of the active replica.
	LeaseDuration time.Duration
	RenewDeadline time.Duration
	RetryPeriod   time.Duration
	Logger        *slog.Logger
}

// WithDefaults fills what may be left out.
func (c Config) WithDefaults() Config {
	if c.Namespace == "" {
		c.Namespace = "tripod-system"
	}
	if c.GuardListen == "" {
		c.GuardListen = ":7443"
	}
	if c.Replicas == "" {
		c.Replicas = "tripod-agent-replicas." + c.Namespace + ".svc:7443"
	}
	if c.LeaseDuration == 0 {
		c.LeaseDuration, c.RenewDeadline, c.RetryPeriod = 4*time.Second, 3*time.Second, 500*time.Millisecond
	}
	if len(c.HubAPI) == 0 {
		for _, member := range c.Hub {
			if host, _, err := net.SplitHostPort(member); err == nil {
				c.HubAPI = append(c.HubAPI, net.JoinHostPort(host, endpoint.APIPort))
			}
		}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

var clusterName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// Validate reports everything that is wrong with c after WithDefaults.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("agent: "+format, args...)) }
	if !clusterName.MatchString(c.Cluster) {
		bad("cluster name %q is not a DNS label: give the name that the join token was made for", c.Cluster)
	}
	if len(c.Hub) == 0 {
		bad("no hub member: give host:%s of every one", endpoint.RPCPort)
	}
	for _, member := range append(append([]string{}, c.Hub...), c.HubAPI...) {
		if _, _, err := net.SplitHostPort(member); err != nil {
			bad("hub member %q is not host:port: %w", member, err)
		}
	}
	if c.Replica == "" {
		bad("no replica name: set it to the pod's name")
	}
	if c.RESTConfig == nil {
		bad("no way to this cluster's API server: run in a pod, or give a kubeconfig")
	}
	if c.RenewDeadline >= c.LeaseDuration || c.RetryPeriod >= c.RenewDeadline {
		bad("election times are lease %v, renew %v, retry %v: each must be less than the one before", c.LeaseDuration, c.RenewDeadline, c.RetryPeriod)
	}
	return errors.Join(errs...)
}
