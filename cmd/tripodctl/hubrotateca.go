package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"

	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

// rotateCATimeout bounds one call: each stage has to come into force on all members.
const rotateCATimeout = 2 * time.Minute

func newHubRotateCACommand(door *connection) *cobra.Command {
	request := &hubv1.RotateAuthorityRequest{}
	var output string
	c := &cobra.Command{
		Use:   "rotate-ca",
		Short: "Replace the hub's CA, or show how far that is",
		Long: `Replace the hub's CA, without a restart. Without a flag it shows how far that is,
and what the next step waits for; the exit code is 2 while there is something.

--begin makes a new CA, has every member trust it, and then issues by it. Nothing
stops: the members show certificates of the old one still. Agents and guards follow
by themselves in about ten minutes; people have their kubeconfigs made again.

--finish has the members show certificates of the new CA and then drops the old one.
It is refused, with the names, while something in use still chains to the old CA.
Name with --without whom you leave behind: a cluster then needs a join token
(tripodctl join-token CLUSTER --rejoin), a person a new kubeconfig.

Every step can be repeated and goes on where it was, also at another leader. See
docs/hub-at-night.md, "A new CA".`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if request.GetBegin() && request.GetFinish() {
				return errors.New("--begin and --finish are two steps, minutes to weeks apart: give one of them")
			}
			return withAdminFor(cmd, door, rotateCATimeout, func(ctx context.Context, admin hubv1.AdminClient) error {
				answer, err := admin.RotateAuthority(ctx, request)
				if err != nil {
					return fmt.Errorf("rotate the hub's CA: %w", plain(err))
				}
				if output == "json" {
					return printJSON(cmd.OutOrStdout(), answer)
				}
				return printRotation(cmd.OutOrStdout(), answer)
			})
		},
	}
	c.Flags().BoolVar(&request.Begin, "begin", false, "make a new CA, have it trusted, issue by it")
	c.Flags().BoolVar(&request.Finish, "finish", false, "drop the old CA if nothing that is in use chains to it")
	c.Flags().StringSliceVar(&request.Without, "without", nil, "cluster or person that is left behind; may be repeated")
	outputFlag(c, &output, "table", "json")
	return c
}

// printRotation says where the rotation is and what comes next.
func printRotation(w io.Writer, answer *hubv1.RotateAuthorityResponse) error {
	next := map[string]string{
		"settled": "there is one CA; --begin replaces it",
		"trust":   "the new CA is being trusted; --begin goes on",
		"issue":   "the new CA issues, both are trusted; --finish drops the old one when nothing is waited for",
		"serve":   "the members show certificates of the new CA, both are trusted; --finish goes on",
	}[answer.GetStage()]
	fmt.Fprintf(w, "stage %s: %s\npresent CA  %s\n", answer.GetStage(), next, answer.GetPresent())
	if answer.GetNext() != "" {
		fmt.Fprintf(w, "next CA     %s\n", answer.GetNext())
	}
	if len(answer.GetWaits()) == 0 {
		return nil
	}
	fmt.Fprint(w, "\nwaits for\n")
	for _, what := range answer.GetWaits() {
		fmt.Fprintf(w, "  %s\n", what)
	}
	return errNotReady
}

// trusted are the hub's CAs of now, in PEM; those of the kubeconfig when the hub does
// not tell, as to who has no certificate.
func (c *connection) trusted(ctx context.Context, config *rest.Config) ([]byte, error) {
	if admin, done, err := c.admin(); err == nil {
		defer done()
		ctx, cancel := context.WithTimeout(ctx, rpcTimeout)
		defer cancel()
		if answer, err := admin.Authorities(ctx, &hubv1.AuthoritiesRequest{}); err == nil {
			return answer.GetCertificates(), nil
		}
	}
	config = rest.CopyConfig(config)
	if err := rest.LoadTLSFiles(config); err != nil {
		return nil, fmt.Errorf("read the hub's CA: %w", err)
	}
	return config.CAData, nil
}
