package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"tripod.dev/tripod/hub/api/statement"
	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

func newHubRestoreCommand(door *connection) *cobra.Command {
	c := &cobra.Command{Use: "restore", Short: "Look at and approve a hub that was restored from a backup"}
	c.AddCommand(newHubRestoreDiffCommand(door), newHubRestoreApproveCommand(door))
	return c
}

func newHubRestoreDiffCommand(door *connection) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "diff",
		Short: "Show what the clusters have otherwise than the restored hub, and what approving does",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withAdmin(cmd, door, func(ctx context.Context, admin hubv1.AdminClient) error {
				answer, err := admin.RestoreDifference(ctx, &hubv1.RestoreDifferenceRequest{})
				if err != nil {
					return fmt.Errorf("ask the hub for the difference: %w", plain(err))
				}
				if output == "json" {
					return printJSON(cmd.OutOrStdout(), answer)
				}
				return printDifference(cmd, answer)
			})
		},
	}
	outputFlag(c, &output, "table", "json")
	return c
}

func printDifference(cmd *cobra.Command, answer *hubv1.RestoreDifferenceResponse) error {
	out := cmd.OutOrStdout()
	state := "approved: it works"
	if answer.GetSealed() {
		state = "sealed: read-only until `tripodctl hub restore approve`"
	}
	fmt.Fprintf(out, "incarnation %d, %s\n", answer.GetIncarnation(), state)
	if len(answer.GetSignedBy()) > 0 {
		fmt.Fprintf(out, "begun on the signatures of %s\n", strings.Join(answer.GetSignedBy(), " and "))
	}
	if len(answer.GetSilent()) > 0 {
		fmt.Fprintf(out, "clusters that have not reported, so nothing is known of them: %s\n", strings.Join(answer.GetSilent(), ", "))
	}
	fmt.Fprintln(out)
	well := len(answer.GetSilent()) == 0
	var rows [][]string
	for _, d := range answer.GetDifferences() {
		blocks := ""
		if d.GetBlocks() {
			blocks, well = "yes", false
		}
		rows = append(rows, []string{d.GetCluster(), d.GetSubject(), d.GetName(), d.GetHub(), d.GetInCluster(), d.GetConsequence(), blocks})
	}
	if len(rows) == 0 {
		fmt.Fprintln(out, "no difference")
	} else if err := printTable(out, []string{"CLUSTER", "KIND", "NAME", "HUB", "CLUSTER HAS", "APPROVING", "BLOCKS"}, rows); err != nil {
		return err
	}
	if !well {
		return errNotReady
	}
	return nil
}

func newHubRestoreApproveCommand(door *connection) *cobra.Command {
	var incarnation uint64
	c := &cobra.Command{
		Use:   "approve --incarnation N",
		Short: "Let a restored hub work, after you have looked at the difference",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withAdmin(cmd, door, func(ctx context.Context, admin hubv1.AdminClient) error {
				answer, err := admin.ApproveRestore(ctx, &hubv1.ApproveRestoreRequest{Incarnation: incarnation})
				if err != nil {
					return fmt.Errorf("approve the restored hub: %w", plain(err))
				}
				fmt.Fprintf(cmd.OutOrStdout(), "incarnation %d works, approved by %s\n", incarnation, answer.GetApprovedBy())
				return nil
			})
		},
	}
	c.Flags().Uint64Var(&incarnation, "incarnation", 0, "the incarnation that `tripodctl hub restore diff` showed (required)")
	_ = c.MarkFlagRequired("incarnation") // the flag is there
	return c
}

func newHubOperatorCommand(door *connection) *cobra.Command {
	c := &cobra.Command{
		Use:   "operator-key",
		Short: "Make and register the key with which you sign a recovery",
		Long: `Make and register the key with which you sign a recovery from the loss of the
hub's majority, or a restore. Two operators must sign. Register it while all is
well: a hub without a majority learns nothing any more.`,
	}
	c.AddCommand(
		&cobra.Command{
			Use:   "new FILE",
			Short: "Make a key; keep the file to yourself",
			Args:  cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				if err := makeKey(args[0]); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s is made; register it with `tripodctl hub operator-key register %s`\n", args[0], args[0])
				return nil
			},
		},
		&cobra.Command{
			Use:   "register FILE",
			Short: "Register your key, under the name by which the hub knows you",
			Args:  cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				key, err := readKey(args[0])
				if err != nil {
					return err
				}
				return withAdmin(cmd, door, func(ctx context.Context, admin hubv1.AdminClient) error {
					answer, err := admin.RegisterOperatorKey(ctx, &hubv1.RegisterOperatorKeyRequest{PublicKey: key.Public().(ed25519.PublicKey)})
					if err != nil {
						return fmt.Errorf("register the key: %w", plain(err))
					}
					fmt.Fprintf(cmd.OutOrStdout(), "registered as %s; operators who can sign: %s\n", answer.GetOperator(), strings.Join(answer.GetOperators(), ", "))
					return nil
				})
			},
		})
	return c
}

func newHubSignCommand() *cobra.Command {
	var keyFile, operator string
	c := &cobra.Command{
		Use:   "sign --key KEY --as NAME STATEMENT",
		Short: "Sign the statement of a recovery or a restore; the hub is not asked",
		Long: `Sign the statement that tripod-hub recover or restore printed. Read it first: you
say that the members it calls lost do not run, and will be emptied before they
run again. NAME is the one under which your key was registered.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := readKey(keyFile)
			if err != nil {
				return err
			}
			text, err := os.ReadFile(args[0])
			if err != nil {
				return fmt.Errorf("read the statement: %w", err)
			}
			signature, err := statement.Sign(text, operator, key)
			if err != nil {
				return err
			}
			return printJSON(cmd.OutOrStdout(), signature)
		},
	}
	c.Flags().StringVar(&keyFile, "key", "", "your key (required)")
	c.Flags().StringVar(&operator, "as", "", "the name under which it is registered (required)")
	for _, required := range []string{"key", "as"} {
		_ = c.MarkFlagRequired(required) // the flag is there
	}
	return c
}

// makeKey writes an Ed25519 key, PKCS #8 in PEM, to a new file.
func makeKey(path string) error {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode the key: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write the key: %w", err)
	}
	if err := errors.Join(pem.Encode(f, &pem.Block{Type: "PRIVATE KEY", Bytes: der}), f.Close()); err != nil {
		return fmt.Errorf("write the key: %w", err)
	}
	return nil
}

func readKey(path string) (ed25519.PrivateKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("read the key %s: it is not PEM: `tripodctl hub operator-key new` makes one", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read the key %s: %w", path, err)
	}
	signer, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read the key %s: it is %T, want Ed25519: `tripodctl hub operator-key new` makes one", path, key)
	}
	return signer, nil
}
