// Command tripod-agent is Tripod's process inside a member cluster.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"tripod.dev/tripod/hub/api/endpoint"
	memberagent "tripod.dev/tripod/member-agent"
)

var version = "dev"

const help = `tripod-agent joins this cluster to a Tripod hub and acts for the hub in it.

It runs as a Deployment of two replicas in namespace tripod-system; make the
manifest with:

  tripodctl agent-manifest NAME | kubectl apply -f -

Every flag may be given as an environment variable instead: --join-token-file is
TRIPOD_JOIN_TOKEN_FILE. The agent only dials out: to every hub member's ports
6443 (to join) and 6444. Databases' guards attach to --listen-guard.`

type flags struct {
	cluster, hub, hubAPI, tokenFile, namespace, replica string
	guard, health, kubeconfig, level, drivers           string
}

func main() {
	var f flags
	command := &cobra.Command{
		Use: "tripod-agent --cluster NAME --hub HOST,HOST,HOST", Short: "Tripod's agent in a member cluster", Long: help,
		Version: version, SilenceUsage: true, SilenceErrors: true, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			return run(ctx, f)
		},
	}
	set := command.Flags()
	text := func(into *string, name, fallback, usage string) {
		key := "TRIPOD_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		if value, ok := os.LookupEnv(key); ok {
			fallback = value
		}
		set.StringVar(into, name, fallback, usage)
	}
	text(&f.cluster, "cluster", "", "this cluster's name in the hub, as the join token was made for (required)")
	text(&f.hub, "hub", "", "every hub member, HOST or HOST:6444, separated by commas (required)")
	text(&f.hubAPI, "hub-api", "", "every hub member's Kubernetes API, HOST:PORT; default: the hosts of --hub with port 6443")
	text(&f.tokenFile, "join-token-file", "/etc/tripod/join/token", "file with the join token; read only while the agent has no certificate")
	text(&f.namespace, "namespace", envOr("POD_NAMESPACE", "tripod-system"), "namespace of the agent, its identity and its memory")
	text(&f.replica, "replica", envOr("POD_NAME", hostName()), "name of this replica")
	text(&f.guard, "listen-guard", ":7443", "address where the guards of databases attach")
	text(&f.health, "listen-health", ":7080", "address of /healthz, /readyz and /metrics; empty serves none")
	text(&f.drivers, "drivers", "", "dataset drivers beside the agent, NAME=/path/of/its.sock, separated by commas")
	text(&f.kubeconfig, "kubeconfig", "", "kubeconfig of this cluster; default: the pod's service account")
	text(&f.level, "log-level", "info", "debug, info, warn or error")
	if err := command.Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "tripod-agent:", err)
		os.Exit(1)
	}
}

func envOr(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}

func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return "" // the configuration's check asks for --replica
	}
	return name
}

func run(ctx context.Context, f flags) error {
	// 1. Logs, for everything below.
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.level)); err != nil {
		return fmt.Errorf("--log-level is %q: use debug, info, warn or error", f.level)
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	slog.SetDefault(logger)
	klog.SetSlogLogger(logger)
	ctrllog.SetLogger(logr.FromSlogHandler(logger.Handler()))
	// 2. The way to this cluster.
	local, err := clusterConfig(f.kubeconfig)
	if err != nil {
		return err
	}
	drivers, err := sockets(f.drivers)
	if err != nil {
		return err
	}
	// 3. The agent.
	agent, err := memberagent.New(memberagent.Config{
		Cluster: f.cluster, Hub: endpoint.Parse(f.hub, endpoint.RPCPort), HubAPI: endpoint.Parse(f.hubAPI, endpoint.APIPort),
		JoinTokenFile: f.tokenFile, Namespace: f.namespace, Replica: f.replica, Version: version,
		GuardListen: f.guard, HealthListen: f.health, RESTConfig: local, Drivers: drivers, Logger: logger,
	})
	if err != nil {
		return err
	}
	// 4. Until a signal; Run ends its parts itself and gives the election back.
	return agent.Run(ctx)
}

// sockets reads --drivers.
func sockets(text string) (map[string]string, error) {
	drivers := map[string]string{}
	for one := range strings.SplitSeq(text, ",") {
		if one == "" {
			continue
		}
		name, path, ok := strings.Cut(one, "=")
		if !ok || name == "" || !filepath.IsAbs(path) || drivers[name] != "" {
			return nil, fmt.Errorf("--drivers holds %q, wants NAME=/path/of/its.sock, each name once", one)
		}
		drivers[name] = path
	}
	return drivers, nil
}

func clusterConfig(path string) (*rest.Config, error) {
	if path == "" {
		config, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("reach this cluster: %w: run in a pod, or give --kubeconfig", err)
		}
		return config, nil
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return nil, fmt.Errorf("reach this cluster: %w", err)
	}
	return config, nil
}
