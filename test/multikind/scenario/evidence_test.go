package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// Where the evidence of runs is kept: a ConfigMap a run, of one JSON line a record.
const (
	evidenceNamespace = "tripod-system"
	evidenceKey       = "records.jsonl"
)

// S27: one record of a run's evidence is edited by somebody who may write it. The
// check fails and names the record; other runs' evidence still holds.
func TestS27EditedEvidenceIsFound(t *testing.T) {
	f := fleet(t)
	run, chain := f.someEvidence(t)
	says(t, must(t)(f.Tripodctl(t.Context(), "evidence", "verify", run)), run, "yes")
	edit := func(ctx context.Context, text string) {
		t.Helper()
		patch, err := json.Marshal(map[string]any{"data": map[string]string{evidenceKey: text}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Kubectl(ctx, nil, "--context", "hub", "-n", evidenceNamespace, "patch", "configmap", "evidence-"+run,
			"--type", "merge", "-p", string(patch)); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() { edit(context.WithoutCancel(t.Context()), chain) })
	const edited = 3
	lines := strings.SplitAfter(chain, "\n")
	lines[edited-1] = strings.Replace(lines[edited-1], `"text":"`, `"text":"indeed `, 1)
	edit(t.Context(), strings.Join(lines, ""))
	said := must(t)(f.Tripodctl(t.Context(), "evidence", "verify", run))
	says(t, said, " no ", fmt.Sprintf("record %d", edited))
	t.Log(said)
}

// someEvidence is a run that has ended, an ordered one if there was none, and its
// chain as it is stored.
func (f *Fleet) someEvidence(t *testing.T) (run, chain string) {
	t.Helper()
	find := func() string {
		names := must(t)(f.Kubectl(t.Context(), nil, "--context", "hub", "get", "recoveryruns",
			"-o", `jsonpath={range .items[?(@.status.phase=="Completed")]}{.metadata.name}{"\n"}{end}`))
		first, _, _ := strings.Cut(names, "\n")
		return first
	}
	if run = find(); run == "" {
		must(t)(f.Tripodctl(t.Context(), "failover", "pay/ledger"))
		run = find()
	}
	must(t)("", f.await(t.Context(), time.Minute, "the evidence of "+run+" is archived", func(ctx context.Context) (string, error) {
		return f.Kubectl(ctx, nil, "--context", "hub", "get", "recoveryrun", run, "-o", "jsonpath={.status.evidence.recent}")
	}))
	chain = must(t)(f.Kubectl(t.Context(), nil, "--context", "hub", "-n", evidenceNamespace, "get", "configmap", "evidence-"+run,
		"-o", `go-template={{index .data "`+evidenceKey+`"}}`))
	return run, chain
}
