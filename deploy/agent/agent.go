// Package agent makes the manifest that puts Tripod's agent into a member
// cluster: what `tripodctl agent-manifest NAME` prints.
package agent

import (
	"bytes"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"sigs.k8s.io/yaml"

	"tripod.dev/tripod/hub/api/endpoint"
	"tripod.dev/tripod/hub/api/jointoken"
)

// Namespace is where the agent runs. It is fixed: the names in the agent's
// certificate, by which guards recognise it, hold it.
const Namespace = "tripod-system"

// DefaultImage is the agent's.
const DefaultImage = "tripod.dev/agent:dev"

//go:embed agent.yaml
var text string

var manifest = template.Must(template.New("agent.yaml").Funcs(template.FuncMap{
	"quote": quote, "base64": func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
}).Parse(text))

// Params fill the manifest.
type Params struct {
	// Cluster is the name that Token was made for.
	Cluster string
	// Hub is every member's HOST or HOST:PORT of the session listener. HubAPI is
	// every member's HOST:PORT of the Kubernetes API, when it is not Hub's hosts
	// with port 6443.
	Hub    []string
	HubAPI []string
	// Address is HOST:PORT where the agents of other clusters reach this one; empty
	// makes no Service for them.
	Address string
	// Token is the join token's text. It is a secret, and so is the manifest.
	Token string
	// Image of the agent; DefaultImage if empty.
	Image string
	// Replicas of the agent; 2 if zero.
	Replicas int
	// LogLevel of the agent; info if empty.
	LogLevel string
	// Without names features whose rights the agent does not get; see Features.
	Without []string
}

// Features are what an agent may do beyond seeing its cluster, each with a
// ClusterRole of its own: to keep datasets, to apply templates, to apply templates
// of roles in namespaces, to apply those of roles in the whole cluster, and to pass
// the gateway's callers on. Without roles there are no clusterroles either.
var Features = []string{"datasets", "placement", "roles", "clusterroles", "gateway"}

func (p Params) withDefaults() Params {
	if p.Image == "" {
		p.Image = DefaultImage
	}
	if p.Replicas == 0 {
		p.Replicas = 2
	}
	if p.LogLevel == "" {
		p.LogLevel = "info"
	}
	return p
}

// Validate reports everything that is wrong with p.
func (p Params) Validate() error {
	var errs []error
	token, err := jointoken.Parse(p.Token)
	if err != nil {
		errs = append(errs, err)
	} else if err := token.ForCluster(p.Cluster); err != nil {
		errs = append(errs, err)
	}
	if len(p.Hub) == 0 {
		errs = append(errs, errors.New("agent manifest: no hub member: give the address of every one"))
	}
	if _, err := p.peerPort(); err != nil {
		errs = append(errs, err)
	}
	if p.Replicas < 0 {
		errs = append(errs, fmt.Errorf("agent manifest: %d replicas: give 2, so that one may fail", p.Replicas))
	}
	for _, feature := range p.Without {
		if !slices.Contains(Features, feature) {
			errs = append(errs, fmt.Errorf("agent manifest: there is no feature %q to leave out: there are %s", feature, strings.Join(Features, ", ")))
		}
	}
	return errors.Join(errs...)
}

// peerPort is the port of Address, 0 if there is none.
func (p Params) peerPort() (int, error) {
	if p.Address == "" {
		return 0, nil
	}
	_, text, err := net.SplitHostPort(p.Address)
	if err != nil {
		return 0, fmt.Errorf("agent manifest: address %q is not HOST:PORT: %w", p.Address, err)
	}
	port, err := strconv.Atoi(text)
	if err != nil || port < 1 || port > 65535 {
		return 0, fmt.Errorf("agent manifest: port %q of the address is not a number from 1 to 65535", text)
	}
	return port, nil
}

// features are those that are not left out.
func (p Params) features() []string {
	return slices.DeleteFunc(slices.Clone(Features), func(f string) bool {
		return slices.Contains(p.Without, f) || f == "clusterroles" && slices.Contains(p.Without, "roles")
	})
}

// Render returns the manifest as YAML documents for `kubectl apply -f -`.
func Render(p Params) ([]byte, error) {
	p = p.withDefaults()
	if err := p.Validate(); err != nil {
		return nil, err
	}
	port, err := p.peerPort()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = manifest.Execute(&out, map[string]any{
		"Features": p.features(), "Namespace": Namespace, "Cluster": p.Cluster, "Image": p.Image, "Replicas": p.Replicas, "LogLevel": p.LogLevel,
		"PeerPort": port, "NodePort": port >= 30000 && port <= 32767,
		"Token":  strings.TrimSpace(p.Token),
		"Hub":    strings.Join(endpoint.Parse(strings.Join(p.Hub, ","), endpoint.RPCPort), ","),
		"HubAPI": strings.Join(endpoint.Parse(strings.Join(p.HubAPI, ","), endpoint.APIPort), ","),
	})
	if err != nil {
		return nil, fmt.Errorf("fill the agent's manifest: %w", err)
	}
	return out.Bytes(), nil
}

// quote makes any text one YAML scalar.
func quote(s string) (string, error) {
	encoded, err := yaml.Marshal(s)
	return strings.TrimSpace(string(encoded)), err
}
