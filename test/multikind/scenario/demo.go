package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"tripod.dev/tripod/test/multikind/fault"
	"tripod.dev/tripod/test/multikind/lab"
	"tripod.dev/tripod/test/multikind/validate"
)

// DemoConfig is what a person may choose about the demo.
type DemoConfig struct {
	Lab lab.Config
	// Rounds of losing the primary's center; the centers alternate.
	Rounds int
	// Folder takes result.json and the clients' journals.
	Folder string
	Out    io.Writer
}

// DemoResult is _demo/result.json. The figures on top are the worst round's.
type DemoResult struct {
	RTOSeconds     float64 `json:"rtoSeconds"`
	DetectSeconds  float64 `json:"detectSeconds"`
	FenceSeconds   float64 `json:"fenceSeconds"`
	PromoteSeconds float64 `json:"promoteSeconds"`
	RouteSeconds   float64 `json:"routeSeconds"`
	validate.Report
	EvidenceVerified bool     `json:"evidenceVerified"`
	Rounds           []Result `json:"rounds"`
}

// rtoObjective is what the demo promises with the default profile.
const rtoObjective = 8.0

// Demo boots a fleet, deploys the ledger, loses the primary's center with the
// hub's leader in it, and audits. It fails when anything promised is not so.
func Demo(ctx context.Context, config DemoConfig) error {
	start := time.Now()
	tell := func(line string) { fmt.Fprintf(config.Out, "%6.1fs  %s\n", time.Since(start).Seconds(), line) }
	chapter := func(title string) { fmt.Fprintf(config.Out, "\n== %s\n", title) }
	journals, err := emptyJournals(config.Folder)
	if err != nil {
		return err
	}

	chapter("Three centers, a Kubernetes cluster in each, a hub across them")
	fleet, err := Boot(ctx, config.Lab, tell)
	if err != nil {
		return err
	}
	chapter("A ledger: an unchanged Deployment and a PostgreSQL, placed by policy")
	if err := fleet.Deploy(ctx); err != nil {
		return err
	}
	fleet.show(ctx, config.Out, "apps")
	chapter("Clients make transfers")
	business, err := fleet.OpenBusiness(ctx, journals, fmt.Sprintf("demo%d", start.Unix()))
	if err != nil {
		return err
	}
	business.Start(ctx)
	defer func() { _ = business.Stop() }()

	var result DemoResult
	for round := 1; round <= config.Rounds; round++ {
		chapter(fmt.Sprintf("Round %d of %d: the primary's center loses power, with the hub's leader in it", round, config.Rounds))
		r, err := fleet.demoRound(ctx, business, round, config.Out)
		if err != nil {
			return err
		}
		result.add(r)
	}
	chapter("The audit: clients' journals against every copy of the database")
	if result.Report, err = business.AwaitCopies(ctx, time.Minute); err != nil {
		return err
	}
	if err := result.save(filepath.Join(config.Folder, "result.json")); err != nil {
		return err
	}
	result.print(config.Out)
	fmt.Fprint(config.Out, next)
	return result.judge()
}

func (f *Fleet) demoRound(ctx context.Context, business *Business, round int, out io.Writer) (Result, error) {
	r, err := business.LosePrimary(ctx, true)
	r.Round = round
	if err != nil {
		return r, err
	}
	f.show(ctx, out, "run", r.Run)
	if err := business.AwaitTransfers(ctx, 200, time.Minute); err != nil {
		return r, err
	}
	f.tell("power returns to " + r.Lost)
	return r, business.Restore(ctx, r)
}

// show runs an operator's command for the person who watches.
func (f *Fleet) show(ctx context.Context, out io.Writer, arguments ...string) {
	text, err := f.Tripodctl(ctx, arguments...)
	if err != nil {
		text = err.Error() + "\n"
	}
	fmt.Fprintf(out, "\n$ tripodctl %s\n%s\n", strings.Join(arguments, " "), text)
}

func (d *DemoResult) add(r Result) {
	d.EvidenceVerified = r.EvidenceVerified && (len(d.Rounds) == 0 || d.EvidenceVerified)
	d.Rounds = append(d.Rounds, r)
	if r.RTOSeconds >= d.RTOSeconds {
		d.RTOSeconds, d.DetectSeconds, d.FenceSeconds = r.RTOSeconds, r.DetectSeconds, r.FenceSeconds
		d.PromoteSeconds, d.RouteSeconds = r.PromoteSeconds, r.RouteSeconds
	}
}

func (d *DemoResult) save(path string) error {
	text, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the result: %w", err)
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

func (d *DemoResult) print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 4, 3, ' ', 0)
	fmt.Fprintln(w, "ROUND\tLOST\tPROMOTED\tRTO\tDETECT\tFENCE\tPROMOTE\tROUTE\tEVIDENCE")
	for _, r := range d.Rounds {
		evidence := "verified"
		if !r.EvidenceVerified {
			evidence = "NOT VERIFIED"
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%.2f s\t%.2f s\t%.2f s\t%.2f s\t%.2f s\t%s\n", r.Round, r.Lost, r.Promoted,
			r.RTOSeconds, r.DetectSeconds, r.FenceSeconds, r.PromoteSeconds, r.RouteSeconds, evidence)
	}
	fmt.Fprintln(w)
	for _, line := range []struct {
		name  string
		value any
	}{
		{"transfers acknowledged", d.Acknowledged}, {"acknowledged and lost (RPO)", d.Lost},
		{"made twice", d.Duplicated}, {"accepted by two epochs", d.AcceptedByTwoEpochs},
		{"outcome unknown to the client", d.Unknown}, {"sum of all balances kept", d.BalanceKept},
	} {
		fmt.Fprintf(w, "%s\t%v\n", line.name, line.value)
	}
	_ = w.Flush()
}

// judge compares the result with what the demo promises.
func (d *DemoResult) judge() error {
	failed := []error{d.Report.Err()}
	if d.RTOSeconds > rtoObjective {
		failed = append(failed, fmt.Errorf("RTO was %.2f s, over the objective of %.0f s", d.RTOSeconds, rtoObjective))
	}
	if !d.EvidenceVerified {
		failed = append(failed, errors.New("the evidence of a run could not be verified"))
	}
	return errors.Join(failed...)
}

const next = `
The lab is still up. Try next:
  eval "$(bin/multikind env)"
  bin/tripodctl hub status
  bin/tripodctl clusters -o wide
  bin/kubernode kubectl --context fleet get pods -A
  bin/kubernode kubectl --context north-2 -n pay logs ledger-db-0 --tail 5
  bin/multikind fault ` + string(fault.PowerOff) + ` north-2     (then: bin/tripodctl runs)
  bin/multikind up                         (repairs everything)
  make demo-down                           (removes everything)
The result is in _demo/result.json.
`
