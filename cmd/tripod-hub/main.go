// Command tripod-hub is one member of a Tripod hub: flags, configuration, New,
// Run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-logr/logr"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"tripod.dev/tripod/hub"
	"tripod.dev/tripod/hub/api/statement"
	"tripod.dev/tripod/hub/headroom"
)

const usage = `tripod-hub runs one member of a Tripod hub.

  tripod-hub --config FILE
  tripod-hub recover …     after the loss of the majority, on a survivor
  tripod-hub restore …     from a backup
  tripod-hub backup …      of a member that does not run

A member needs nothing else: the store, the Kubernetes API, the gateway and the
DNS server are in this program. FILE, the same on every member but for name,
bootstrap and dns.listen:

  name: hub-a                    # this member
  dataDir: /var/lib/tripod
  bootstrap: true                # on exactly one member, at the first start
  hubTokenFile: /etc/tripod/hub-token   # the same secret on every member
  members:
  - {name: hub-a, region: north, center: north-1, address: 192.0.2.1}
  - {name: hub-b, region: north, center: north-2, address: 192.0.2.2}
  - {name: hub-c, region: south, center: south-1, address: 192.0.2.3}
  dns: {listen: "192.0.2.1:53", zones: [example.test]}
  # encryptionConfigFile: FILE   # your own instead of the hub's keys, e.g. a KMS
  # drivers: [NAME]              # dataset drivers beside the agents; the same on every member
  storeQuota: 8Gi                # over it what grows is refused; the same on every member

Ports: 6443 Kubernetes API and gateway, 6444 agents and automation, 6445 Raft,
2379 etcd API. The first start writes DATADIR/admin.kubeconfig; the member is
ready when it says so in its log.

Flags:
`

func main() {
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usage)
		flag.PrintDefaults()
	}
	path := flag.String("config", "", "configuration file (required)")
	level := flag.String("log-level", "info", "debug, info, warn or error")
	version := flag.Bool("version", false, "print the version and exit")
	flag.Parse()
	if *version {
		fmt.Println("tripod-hub", hub.Version)
		return
	}
	var err error
	switch action := flag.Arg(0); {
	case action == statement.Recover || action == statement.Restore:
		err = found(context.Background(), action, flag.Args()[1:], os.Stdout)
	case action == "backup":
		err = backUp(context.Background(), flag.Args()[1:], os.Stdout)
	case *path == "" || action != "":
		flag.Usage()
		os.Exit(2)
	default:
		err = run(*path, *level)
	}
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tripod-hub:", err)
		os.Exit(1)
	}
}

func run(path, level string) error {
	var threshold slog.Level
	if err := threshold.UnmarshalText([]byte(level)); err != nil {
		return fmt.Errorf("--log-level is %q: use debug, info, warn or error", level)
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: threshold}))
	ctrllog.SetLogger(logr.FromSlogHandler(logger.Handler()))
	config, err := hub.LoadConfig(path)
	if err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" { // whoever sets it wants that
		defer headroom.Follow(headroom.Least)()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	member, err := hub.New(ctx, config, logger)
	if err != nil {
		return err
	}
	if err := member.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
