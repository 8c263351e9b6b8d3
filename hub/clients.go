package hub

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	failovercontroller "tripod.dev/tripod/failover/controller"
)

// clients reaches clusters' API servers through their tunnels, in nobody's name: each
// cluster's agent asks with its own rights.
func clients(dial func(ctx context.Context, cluster string) (net.Conn, error)) failovercontroller.Clusters {
	return func(cluster string) (kubernetes.Interface, func(), error) {
		transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, cluster) }}
		client, err := kubernetes.NewForConfigAndClient(&rest.Config{Host: "http://" + cluster}, &http.Client{Transport: transport})
		if err != nil {
			return nil, nil, fmt.Errorf("make a client of cluster %s: %w", cluster, err)
		}
		return client, transport.CloseIdleConnections, nil
	}
}
