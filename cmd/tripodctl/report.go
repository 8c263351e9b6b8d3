package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/failover/evidence"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// report is what an auditor gets of one run.
type report struct {
	Run      string                     `json:"run"`
	Spec     v1alpha1.RecoveryRunSpec   `json:"spec"`
	Status   v1alpha1.RecoveryRunStatus `json:"status"`
	Evidence evidenceReport             `json:"evidence"`
}

// evidenceReport is the chain and what checking it here, not at the hub, found.
type evidenceReport struct {
	Verified bool              `json:"verified"`
	Problem  string            `json:"problem,omitempty"`
	Head     string            `json:"head"`
	Records  int               `json:"records"`
	Measured *measured         `json:"measured,omitempty"`
	Chain    []evidence.Record `json:"chain"`
}

// measured is recomputed from the chain, in seconds.
type measured struct {
	Detect    float64  `json:"detectSeconds"`
	Fence     float64  `json:"fenceSeconds"`
	Promote   float64  `json:"promoteSeconds"`
	Route     float64  `json:"routeSeconds"`
	RTO       float64  `json:"rtoSeconds"`
	RPO       string   `json:"rpo"`
	Approvers []string `json:"approvers,omitempty"`
}

func newReportCommand(door *connection) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "report RUN",
		Short: "Report a recovery run and verify its evidence",
		Long: `Report a recovery run and verify its evidence.

The hash chain and the hub's signature are checked here, and the times are
computed again from the records. Exit code 2 means that the evidence does not
hold; the report names the first record that was edited.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, run, err := door.run(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			r := report{Run: run.Name, Spec: run.Spec, Status: run.Status}
			if r.Evidence, err = readEvidence(cmd.Context(), api, run); err != nil {
				return err
			}
			if output == "json" {
				err = printJSON(cmd.OutOrStdout(), r)
			} else {
				err = printReport(cmd.OutOrStdout(), run, r.Evidence)
			}
			if err == nil && !r.Evidence.Verified {
				err = errNotReady
			}
			return err
		},
	}
	outputFlag(c, &output, "text", "json")
	return c
}

// readEvidence reads a run's chain and checks it.
func readEvidence(ctx context.Context, api client.Client, run *v1alpha1.RecoveryRun) (evidenceReport, error) {
	run, archived, err := readArchive(ctx, api, run)
	if err != nil {
		return evidenceReport{}, err
	}
	e := evidenceReport{Head: run.Status.Evidence.Head}
	recent, err1 := evidence.Decode([]byte(run.Status.Evidence.Recent))
	beginning, err2 := evidence.Decode([]byte(archived))
	if err = errors.Join(err1, err2); err == nil {
		e.Chain, err = evidence.Join(run.Name, beginning, recent)
	}
	if err != nil {
		e.Problem = err.Error()
		return e, nil
	}
	e.Records = len(e.Chain)
	key, err := evidenceKey(ctx, api)
	if err != nil {
		return e, err
	}
	if err := errors.Join(
		evidence.Verify(e.Chain, run.Name, e.Head),
		evidence.VerifySignature(key, run.Name, e.Head, run.Status.Evidence.Signature),
	); err != nil {
		e.Problem = err.Error()
		return e, nil
	}
	e.Verified = true
	if m, err := evidence.Measure(e.Chain); err == nil {
		e.Measured = &measured{
			Detect: m.Detect.Seconds(), Fence: m.Fence.Seconds(), Promote: m.Promote.Seconds(),
			Route: m.Route.Seconds(), RTO: m.RTO.Seconds(), RPO: m.RPO, Approvers: m.Approvers,
		}
	}
	return e, nil
}

// readArchive reads what is archived of a run's evidence, and the run as it was meanwhile:
// what is in neither of two objects may have been moved between two reads.
func readArchive(ctx context.Context, api client.Client, run *v1alpha1.RecoveryRun) (*v1alpha1.RecoveryRun, string, error) {
	for {
		archived, err := readParts(ctx, api, run)
		if err != nil {
			return nil, "", err
		}
		var now v1alpha1.RecoveryRun
		if err := api.Get(ctx, client.ObjectKeyFromObject(run), &now); err != nil {
			return nil, "", fmt.Errorf("get run %s: %w", run.Name, err)
		}
		if now.Status.Evidence == run.Status.Evidence {
			return run, archived, nil
		}
		run = &now
	}
}

func readParts(ctx context.Context, api client.Client, run *v1alpha1.RecoveryRun) (string, error) {
	var all strings.Builder
	for number := 1; ; number++ {
		var part corev1.ConfigMap
		err := api.Get(ctx, client.ObjectKey{Namespace: evidence.Namespace, Name: evidence.ConfigMap(run.Name, number)}, &part)
		if client.IgnoreNotFound(err) != nil {
			return "", fmt.Errorf("get the archived evidence of %s: %w", run.Name, err)
		}
		text := part.Data[evidence.ConfigMapKey]
		if err != nil || !evidence.OfRun(part.Annotations, string(run.UID)) { // none yet, or an older run's
			return all.String(), nil
		}
		all.WriteString(text)
		if !evidence.Full(text) {
			return all.String(), nil
		}
	}
}

// evidenceKey returns the public key that the hub publishes for auditors.
func evidenceKey(ctx context.Context, api client.Client) (crypto.PublicKey, error) {
	var published corev1.ConfigMap
	if err := api.Get(ctx, client.ObjectKey{Namespace: evidence.Namespace, Name: evidence.KeyConfigMap}, &published); err != nil {
		return nil, fmt.Errorf("get the hub's evidence key: %w", err)
	}
	block, _ := pem.Decode([]byte(published.Data[evidence.KeyConfigMapKey]))
	if block == nil {
		return nil, fmt.Errorf("the ConfigMap %s/%s holds no PEM public key under %s", evidence.Namespace, evidence.KeyConfigMap, evidence.KeyConfigMapKey)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read the hub's evidence key: %w", err)
	}
	return key, nil
}

func printReport(w io.Writer, run *v1alpha1.RecoveryRun, e evidenceReport) error {
	if err := printRun(w, run); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nevidence  %d records, head %s\n", e.Records, e.Head)
	switch {
	case e.Problem != "":
		fmt.Fprintf(w, "          NOT VERIFIED: %s\n", e.Problem)
	case e.Measured != nil:
		fmt.Fprintf(w, "          verified; recomputed: detect %.3fs, fence %.3fs, promote %.3fs, route %.3fs, RTO %.3fs, RPO %s\n",
			e.Measured.Detect, e.Measured.Fence, e.Measured.Promote, e.Measured.Route, e.Measured.RTO, e.Measured.RPO)
	default:
		fmt.Fprintln(w, "          verified; the run has not ended, so nothing is measured")
	}
	var rows [][]string
	for _, r := range e.Chain {
		rows = append(rows, []string{fmt.Sprint(r.Sequence), r.At.Format("15:04:05.000"), r.By, r.Kind, r.Subject, r.Text})
	}
	fmt.Fprintln(w)
	return printTable(w, []string{"#", "AT", "BY", "KIND", "SUBJECT", "WHAT"}, rows)
}
