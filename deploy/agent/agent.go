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

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	// Direct lets the hub's members pass people on by themselves too, as
	// spec.access.mode Direct of the Cluster needs it.
	Direct bool
}

// Features are what an agent may do beyond seeing its cluster, each with a
// ClusterRole of its own: to keep datasets, to apply templates, to apply templates
// of roles in namespaces, to apply those of roles in the whole cluster, and to pass
// the gateway's callers on. Without roles there are no clusterroles either.
var Features = []string{"datasets", "placement", "roles", "clusterroles", "gateway"}

// verbs are those of requests for resources.
var verbs = []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"}

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
	return errors.Join(append(errs, p.ValidateRights())...)
}

// ValidateRights reports what is wrong with the choice of features, which can be known
// before there is a token.
func (p Params) ValidateRights() error {
	var errs []error
	if p.Direct && slices.Contains(p.Without, "gateway") {
		errs = append(errs, errors.New("agent manifest: mode Direct is for the gateway, which is left out: give one of the two"))
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
	return p.fill()
}

// fill writes the manifest; p is valid.
func (p Params) fill() ([]byte, error) {
	port, err := p.peerPort()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = manifest.Execute(&out, map[string]any{
		"Features": p.features(), "Namespace": Namespace, "Cluster": p.Cluster, "Image": p.Image, "Replicas": p.Replicas, "LogLevel": p.LogLevel,
		"Direct": p.Direct, "Verbs": verbs,
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

// Role is the ClusterRole of a feature, and what binds it, as in the manifest of an agent
// of a cluster in mode Direct: for clusters that get nothing else of it.
func Role(feature string) (*rbacv1.ClusterRole, *rbacv1.ClusterRoleBinding, error) {
	text, err := Params{Direct: true}.withDefaults().fill()
	if err != nil {
		return nil, nil, err
	}
	role, binding := &rbacv1.ClusterRole{}, &rbacv1.ClusterRoleBinding{}
	for document := range bytes.SplitSeq(text, []byte("\n---\n")) {
		var meta metav1.PartialObjectMetadata
		if err := yaml.Unmarshal(document, &meta); err != nil {
			return nil, nil, fmt.Errorf("read the agent's manifest: %w", err)
		}
		var into any
		switch {
		case meta.Name != "tripod-agent-"+feature:
			continue
		case meta.Kind == "ClusterRole":
			into = role
		case meta.Kind == "ClusterRoleBinding":
			into = binding
		}
		if err := yaml.UnmarshalStrict(document, into); err != nil {
			return nil, nil, fmt.Errorf("read the agent's %s for %s: %w", meta.Kind, feature, err)
		}
	}
	if role.Name == "" || binding.Name == "" {
		return nil, nil, fmt.Errorf("the agent's manifest has no role for %q: there are %s", feature, strings.Join(Features, ", "))
	}
	return role, binding, nil
}

// quote makes any text one YAML scalar.
func quote(s string) (string, error) {
	encoded, err := yaml.Marshal(s)
	return strings.TrimSpace(string(encoded)), err
}
