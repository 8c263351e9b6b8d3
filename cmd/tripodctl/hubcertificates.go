package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

func newHubCertificatesCommand(door *connection) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "certificates",
		Short: "List the certificates of the hub's CA, the first to end first",
		Long: `List the certificates of the hub's CA, the first to end first: those of the
members, and those that agents and guards have shown to a member since it started.

All but the CA's own are renewed by themselves with a third of their life left,
without a restart; open connections go on. PROBLEM names one that should have been
renewed by now. The exit code is 2 when there is one, or a member does not answer.

CA is the beginning of the fingerprint of the CA that issued it.

Copies that people have taken of an administrator's kubeconfig are not known here.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withAdmin(cmd, door, func(ctx context.Context, admin hubv1.AdminClient) error {
				answer, err := admin.Certificates(ctx, &hubv1.CertificatesRequest{})
				if err != nil {
					return fmt.Errorf("ask the hub for its certificates: %w", plain(err))
				}
				if output == "json" {
					return printJSON(cmd.OutOrStdout(), answer)
				}
				return printCertificates(cmd, answer, time.Now())
			})
		},
	}
	outputFlag(c, &output, "table", "json")
	c.AddCommand(newHubRotateCACommand(door))
	return c
}

func printCertificates(cmd *cobra.Command, answer *hubv1.CertificatesResponse, now time.Time) error {
	well := len(answer.GetSilent()) == 0
	var rows [][]string
	for _, c := range answer.GetCertificates() {
		ends := time.Unix(c.GetNotAfter(), 0)
		where := c.GetWhere()
		if c.GetShown() == 0 {
			where = c.GetMember() + ": " + where
		}
		rows = append(rows, []string{c.GetName(), c.GetKind(), ends.UTC().Format("2006-01-02 15:04"), left(ends.Sub(now)), where, c.GetRenewal(), shortCA(c.GetIssuer()), c.GetProblem()})
		well = well && c.GetProblem() == ""
	}
	if err := printTable(cmd.OutOrStdout(), []string{"NAME", "KIND", "ENDS (UTC)", "LEFT", "WHERE", "RENEWED", "CA", "PROBLEM"}, rows); err != nil {
		return err
	}
	if silent := answer.GetSilent(); len(silent) > 0 {
		fmt.Fprintf(cmd.OutOrStdout(), "\nno answer from %s: what only they know is missing\n", strings.Join(silent, ", "))
	}
	if !well {
		return errNotReady
	}
	return nil
}

// shortCA tells CAs apart by the beginning of their fingerprint.
func shortCA(fingerprint string) string {
	_, hex, _ := strings.Cut(fingerprint, ":")
	return hex[:min(len(hex), 8)]
}

// left is how long a certificate lives, to the day, and to the minute at the end.
func left(d time.Duration) string {
	switch {
	case d <= 0:
		return "0"
	case d < 48*time.Hour:
		return strings.TrimSuffix(d.Truncate(time.Minute).String(), "0s")
	default:
		return fmt.Sprintf("%dd", int(d/(24*time.Hour)))
	}
}
