// Command tripodctl is the operator's door to a Tripod hub. It is also usable
// as `kubectl tripod` when it is on the PATH as kubectl-tripod.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes mean something to scripts.
const (
	exitFailed   = 1 // the command could not do what was asked
	exitNotReady = 2 // the command worked and what it reports is not well
)

// errNotReady ends the program with exitNotReady after the report was printed.
var errNotReady = errors.New("not ready")

// version is set by the linker.
var version = "dev"

func main() { os.Exit(run()) }

// run is the program; it returns the exit code.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := newCommand().ExecuteContext(ctx)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errNotReady):
		return exitNotReady
	default:
		fmt.Fprintln(os.Stderr, "tripodctl:", explain(err))
		return exitFailed
	}
}

func newCommand() *cobra.Command {
	var door connection
	root := &cobra.Command{
		Use:     "tripodctl",
		Version: version,
		Short:   "Operate a Tripod hub: clusters, applications, recovery runs",
		Long: `Operate a Tripod hub.

The hub is found through a kubeconfig (--kubeconfig, or KUBECONFIG) and its
context "hub", or the current one. When TRIPOD_HUB or --hub lists the members
(HOST,HOST,HOST), one that does not answer is passed over.

Exit codes: 0 done, 1 failed, 2 the report was printed and something is not well.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	door.flags(root.PersistentFlags())
	root.AddCommand(
		newHubCommand(&door),
		newJoinTokenCommand(&door),
		newAgentManifestCommand(&door),
		newClustersCommand(&door),
		newAppsCommand(&door),
		newPlansCommand(&door),
		newPreflightCommand(&door),
		newSwitchoverCommand(&door),
		newFailoverCommand(&door),
		newFailbackCommand(&door),
		newHoldCommand(&door),
		newDrillCommand(&door),
		newRunsCommand(&door),
		newRunCommand(&door),
		newApproveCommand(&door),
		newAttestCommand(&door),
		newReportCommand(&door),
		newEvidenceCommand(&door), newAuditCommand(&door),
		newKubeconfigCommand(&door), newUserCertificateCommand(&door), newAccessCommand(&door),
	)
	sayUsage(root)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w: `%s --help` lists the flags", err, c.CommandPath())
	})
	return root
}
