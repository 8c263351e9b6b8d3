package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"tripod.dev/tripod/hub/api/endpoint"
)

// membersExtension is where each server of a kubeconfig keeps the members of its
// hub. kubectl leaves extensions alone, and merges of files keep them apart.
const membersExtension = "tripod.dev/members"

// fleetMember is one member of the hub, as a kubeconfig names it.
type fleetMember struct {
	Name string `json:"name"`
	// Server is HOST:PORT of its API.
	Server string `json:"server"`
}

func addresses(members []fleetMember) []string {
	var all []string
	for _, m := range members {
		all = append(all, m.Server)
	}
	return all
}

// fleetRoute is one context: a path at any member.
type fleetRoute struct{ name, path, namespace string }

func clusterRoute(name string) fleetRoute {
	route := fleetRoute{name: name, path: "/clusters/" + name}
	if name == "hub" || name == "fleet" {
		route.name = "clusters/" + name
	}
	return route
}

// applicationRoute has the application's namespace as kubectl's default: what is
// placed keeps its namespace.
func applicationRoute(namespace, name string) fleetRoute {
	return fleetRoute{name: namespace + "/" + name, path: "/applications/" + namespace + "/" + name, namespace: namespace}
}

// fleetConfig is what a kubeconfig of the fleet is made of.
type fleetConfig struct {
	// server is HOST:PORT that the plain contexts lead to.
	server      string
	members     []fleetMember
	each        bool
	routes      []fleetRoute
	credentials *clientcmdapi.AuthInfo
	authority   []byte
}

func (f fleetConfig) config() (*clientcmdapi.Config, error) {
	out := clientcmdapi.NewConfig()
	known, err := json.Marshal(f.members)
	if err != nil {
		return nil, fmt.Errorf("encode the members: %w", err)
	}
	extensions := map[string]runtime.Object{membersExtension: &runtime.Unknown{Raw: known, ContentType: runtime.ContentTypeJSON}}
	out.CurrentContext = "hub"
	out.AuthInfos["me"] = f.credentials
	for _, route := range f.routes {
		f.add(out, route, route.name, f.server, extensions)
		if !f.each {
			continue
		}
		for _, member := range f.members {
			f.add(out, route, route.name+"@"+member.Name, member.Server, extensions)
		}
	}
	return out, nil
}

func (f fleetConfig) add(out *clientcmdapi.Config, route fleetRoute, name, server string, extensions map[string]runtime.Object) {
	out.Clusters[name] = &clientcmdapi.Cluster{
		Server:                   "https://" + server + route.path,
		TLSServerName:            endpoint.ServerName, // in every member's certificate
		CertificateAuthorityData: f.authority, Extensions: extensions,
	}
	out.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: "me", Namespace: route.namespace}
}

// extended reads the members that one server of a kubeconfig keeps; none if it is
// not ours.
func extended(cluster *clientcmdapi.Cluster) []fleetMember {
	if cluster == nil {
		return nil
	}
	unknown, ok := cluster.Extensions[membersExtension].(*runtime.Unknown)
	if !ok {
		return nil
	}
	var members []fleetMember
	if json.Unmarshal(unknown.Raw, &members) != nil {
		return nil
	}
	return slices.DeleteFunc(members, func(m fleetMember) bool { return m.Server == "" })
}

// lead has the plain contexts of a kubeconfig lead to what find says for the
// members of their hub; those of one member stay with it, and those of other
// systems as they are. It returns how many there are and how many changed.
func lead(config *clientcmdapi.Config, find func([]fleetMember) (string, error)) (all, changed int, err error) {
	for name, cluster := range config.Clusters {
		members := extended(cluster)
		if len(members) == 0 {
			continue
		}
		_, member, found := strings.Cut(name, "@")
		if found && slices.ContainsFunc(members, func(m fleetMember) bool { return m.Name == member }) {
			continue
		}
		server, err := find(members)
		if err != nil {
			return all, changed, err
		}
		all++
		address, path, _ := strings.Cut(strings.TrimPrefix(cluster.Server, "https://"), "/")
		if address == server {
			continue
		}
		cluster.Server = "https://" + server
		if path != "" {
			cluster.Server += "/" + path
		}
		changed++
	}
	return all, changed, nil
}
