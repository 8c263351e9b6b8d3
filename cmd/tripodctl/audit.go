package main

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/failover/evidence"
	"tripod.dev/tripod/hub/api/audittrail"
)

// auditHeads is what an audit log is compared with: `tripodctl audit heads` prints
// it, and whoever verifies without the hub keeps it.
type auditHeads struct {
	// Key is the public key (PEM, PKIX) of the hub's signatures.
	Key string `json:"key"`
	// Heads by audittrail.Head.Key.
	Heads map[string]audittrail.Head `json:"heads"`
}

func (h auditHeads) public() (ed25519.PublicKey, error) {
	block, _ := pem.Decode([]byte(h.Key))
	if block == nil {
		return nil, errors.New("the hub's public key is not PEM")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read the hub's public key: %w", err)
	}
	public, ok := key.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("the hub's public key is a %T: expected Ed25519", key)
	}
	return public, nil
}

func newAuditCommand(door *connection) *cobra.Command {
	c := &cobra.Command{Use: "audit", Short: "Check the audit logs of hub members"}
	c.AddCommand(newAuditVerifyCommand(door), newAuditHeadsCommand(door))
	return c
}

func newAuditHeadsCommand(door *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "heads",
		Short: "Print the hub's public key and the published heads of its audit logs",
		Long: `Print the hub's public key and the published heads of its audit logs, as JSON.

Take them together with a copy of the files, and before it:
"tripodctl audit verify --heads FILE" then needs no hub.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			heads, err := fetchAuditHeads(cmd.Context(), door)
			if err != nil {
				return err
			}
			return printJSON(cmd.OutOrStdout(), heads)
		},
	}
}

func newAuditVerifyCommand(door *connection) *cobra.Command {
	var output, from string
	c := &cobra.Command{
		Use:   "verify FILE ...",
		Short: "Verify audit logs: nothing was edited, removed, reordered or cut off",
		Long: `Verify audit logs: nothing was edited, removed, reordered or cut off.

Give all files of a member, or of several, in any order: DATADIR/apiserver/audit/*.log.
Each record is hashed again, the hub's signatures are checked, and the logs are
compared with the heads that the hub has published in its own store, here and not at
the hub. Exit code 2 means that a log does not hold: each place is named.

Records after the last signature (SIGNED) are a few seconds' worth in the log of a
member that runs, or of one that was killed. Old files that rotation has deleted are
not missed.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			// Before the files: they then reach at least as far.
			heads, err := auditHeadsFrom(cmd.Context(), door, from)
			if err != nil {
				return err
			}
			public, err := heads.public()
			if err != nil {
				return err
			}
			result, err := audittrail.Verify(auditFiles(args), public, heads.Heads)
			if err != nil {
				return err
			}
			if output == "json" {
				err = printJSON(cmd.OutOrStdout(), result)
			} else {
				err = printAudit(cmd.OutOrStdout(), result)
			}
			if err == nil && !result.Good() {
				err = errNotReady
			}
			return err
		},
	}
	c.Flags().StringVar(&from, "heads", "", "file that `tripodctl audit heads` has printed, instead of asking the hub")
	outputFlag(c, &output, "table", "json")
	return c
}

func auditFiles(paths []string) []audittrail.File {
	var files []audittrail.File
	for _, path := range paths {
		files = append(files, audittrail.File{Name: path, Open: func() (io.ReadCloser, error) { return os.Open(path) }})
	}
	return files
}

func auditHeadsFrom(ctx context.Context, door *connection, path string) (auditHeads, error) {
	if path == "" {
		return fetchAuditHeads(ctx, door)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return auditHeads{}, fmt.Errorf("read the published heads: %w", err)
	}
	var heads auditHeads
	if err := json.Unmarshal(text, &heads); err != nil {
		return auditHeads{}, fmt.Errorf("read the published heads in %s: %w; make the file with `tripodctl audit heads`", path, err)
	}
	return heads, nil
}

func fetchAuditHeads(ctx context.Context, door *connection) (auditHeads, error) {
	api, err := door.client()
	if err != nil {
		return auditHeads{}, err
	}
	var key, published corev1.ConfigMap
	if err := api.Get(ctx, client.ObjectKey{Namespace: evidence.Namespace, Name: evidence.KeyConfigMap}, &key); err != nil {
		return auditHeads{}, fmt.Errorf("read the hub's public key: %w", err)
	}
	heads := auditHeads{Key: key.Data[evidence.KeyConfigMapKey], Heads: map[string]audittrail.Head{}}
	err = api.Get(ctx, client.ObjectKey{Namespace: audittrail.Namespace, Name: audittrail.ConfigMap}, &published)
	if apierrors.IsNotFound(err) {
		return heads, nil // a hub of a minute's age
	}
	if err != nil {
		return auditHeads{}, fmt.Errorf("read the published heads: %w", err)
	}
	for name, text := range published.Data {
		var head audittrail.Head
		if err := json.Unmarshal([]byte(text), &head); err != nil {
			return auditHeads{}, fmt.Errorf("read the published head %s: %w", name, err)
		}
		heads.Heads[name] = head
	}
	return heads, nil
}

func printAudit(w io.Writer, result audittrail.Result) error {
	var rows [][]string
	problems := result.Problems
	for _, t := range result.Trails {
		state := "open"
		if t.Ended {
			state = "ended"
		}
		rows = append(rows, []string{t.Member, t.Trail, fmt.Sprint(len(t.Files)), fmt.Sprintf("%d-%d", t.First, t.Last),
			fmt.Sprintf("%d (%s)", t.Signed, t.SignedAt.Format("2006-01-02 15:04:05Z")), fmt.Sprint(t.Published), state, fmt.Sprint(len(t.Problems))})
		problems = append(problems, t.Problems...)
	}
	if err := printTable(w, []string{"MEMBER", "TRAIL", "FILES", "RECORDS", "SIGNED", "PUBLISHED", "END", "PROBLEMS"}, rows); err != nil {
		return err
	}
	for _, p := range problems {
		if _, err := fmt.Fprintln(w, p); err != nil {
			return err
		}
	}
	return nil
}
