package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/test/multikind/fault"
	"tripod.dev/tripod/test/multikind/validate"
)

// Result is what one survived (or not survived) loss of a center came to. The
// outage is measured by the clients; the parts of it are the run's own.
type Result struct {
	Round          int     `json:"round"`
	Lost           string  `json:"lostCenter"`
	Promoted       string  `json:"promotedCenter"`
	LeaderLost     bool    `json:"leaderLost"`
	Run            string  `json:"run"`
	RTOSeconds     float64 `json:"rtoSeconds"`
	DetectSeconds  float64 `json:"detectSeconds"`
	FenceSeconds   float64 `json:"fenceSeconds"`
	PromoteSeconds float64 `json:"promoteSeconds"`
	RouteSeconds   float64 `json:"routeSeconds"`
	// EvidenceVerified is true when the run's hash chain holds and is signed.
	EvidenceVerified bool `json:"evidenceVerified"`
}

// LosePrimary cuts the power of the primary's center under traffic and waits
// until transfers are acknowledged again. With leader, the hub's leadership is
// handed to that center first.
func (b *Business) LosePrimary(ctx context.Context, leader bool) (Result, error) {
	f := b.fleet
	before, err := f.Dataset(ctx)
	if err != nil {
		return Result{}, err
	}
	result := Result{Lost: before.Status.Primary, LeaderLost: leader}
	if err := f.AwaitNoLossBeside(ctx, result.Lost); err != nil {
		return result, err
	}
	if leader {
		if err := f.LeadFrom(ctx, result.Lost); err != nil {
			return result, err
		}
		f.tell(fmt.Sprintf("the hub is led from %s, where the primary is", result.Lost))
	}
	if err := b.AwaitTransfers(ctx, 200, time.Minute); err != nil {
		return result, err
	}
	effect, err := f.Inject(ctx, fault.Fault{Kind: fault.PowerOff, Center: result.Lost})
	if err != nil {
		return result, err
	}
	f.tell("waiting for the first acknowledged transfer after the loss")
	if err := b.awaitAfter(ctx, effect.Monotonic, time.Minute); err != nil {
		return result, err
	}
	outage, err := b.Outage(effect.Monotonic)
	if err != nil {
		return result, err
	}
	result.RTOSeconds = seconds(outage)
	f.tell(fmt.Sprintf("transfers go on: %.2f s after the power went", result.RTOSeconds))
	return result, b.describeRun(ctx, &result)
}

// awaitAfter waits until a transfer sent after the fault is acknowledged.
func (b *Business) awaitAfter(ctx context.Context, fault time.Duration, limit time.Duration) error {
	return b.fleet.await(ctx, limit, "a transfer sent after the fault is acknowledged", func(context.Context) (string, error) {
		if time.Duration(b.ledger.Counters().LastAcknowledged.Load()) < fault {
			return fmt.Sprintf("refused %d, unknown %d", b.ledger.Counters().Refused.Load(), b.ledger.Counters().Unknown.Load()), nil
		}
		outage, err := b.Outage(fault)
		b.longest = max(b.longest, outage)
		return "", err
	})
}

// describeRun waits until the run that carried out the failover has ended and
// copies what it measured.
func (b *Business) describeRun(ctx context.Context, result *Result) error {
	f := b.fleet
	var run v1alpha1.RecoveryRun
	err := f.await(ctx, time.Minute, "the recovery run is Completed", func(ctx context.Context) (string, error) {
		api, err := f.API(result.Lost)
		if err != nil {
			return "", err
		}
		var runs v1alpha1.RecoveryRunList
		if err := api.List(ctx, &runs); err != nil {
			return "", err
		}
		runs.Items = slices.DeleteFunc(runs.Items, func(r v1alpha1.RecoveryRun) bool { return r.Spec.From.Cluster != result.Lost })
		if len(runs.Items) == 0 {
			return "there is no run from " + result.Lost, nil
		}
		run = slices.MaxFunc(runs.Items, func(a, b v1alpha1.RecoveryRun) int {
			return a.CreationTimestamp.Compare(b.CreationTimestamp.Time)
		})
		if run.Status.Phase != v1alpha1.RunCompleted {
			return fmt.Sprintf("%s is %s: %s", run.Name, run.Status.Phase, run.Status.Message), nil
		}
		return "", nil
	})
	if err != nil {
		return err
	}
	result.Run, result.Promoted = run.Name, run.Spec.To.Cluster
	if m := run.Status.Measured; m != nil {
		for _, figure := range []struct {
			to   *float64
			text string
		}{
			{&result.DetectSeconds, m.DetectSeconds}, {&result.FenceSeconds, m.FenceSeconds},
			{&result.PromoteSeconds, m.PromoteSeconds}, {&result.RouteSeconds, m.RouteSeconds},
		} {
			if *figure.to, err = strconv.ParseFloat(figure.text, 64); err != nil {
				return fmt.Errorf("read what the run %s measured: %w", run.Name, err)
			}
		}
	}
	result.EvidenceVerified, err = f.verifyEvidence(ctx, run.Name)
	return err
}

// verifyEvidence asks for the run's report, which recomputes the hash chain.
func (f *Fleet) verifyEvidence(ctx context.Context, run string) (bool, error) {
	text, err := f.Tripodctl(ctx, "report", run, "-o", "json")
	if err != nil {
		return false, err
	}
	var report struct {
		Evidence struct {
			Verified bool `json:"verified"`
			Records  int  `json:"records"`
		} `json:"evidence"`
	}
	if err := json.Unmarshal([]byte(text), &report); err != nil {
		return false, fmt.Errorf("read the report of %s: %w", run, err)
	}
	if report.Evidence.Records == 0 {
		return false, errors.New("the report of " + run + " has no evidence")
	}
	return report.Evidence.Verified, nil
}

// Restore powers the lost center on and waits until it is a replica again, in the
// committed sync set, and stable for the hold time.
func (b *Business) Restore(ctx context.Context, result Result) error {
	f := b.fleet
	if err := f.Repair(ctx); err != nil {
		return err
	}
	if err := f.AwaitProtected(ctx, 3*time.Minute, result.Lost, result.Promoted); err != nil {
		return err
	}
	f.tell(fmt.Sprintf("%s is a replica of %s, in the sync set again and stable", result.Lost, result.Promoted))
	return nil
}

// AwaitCopies waits until every copy holds what the primary held when the
// traffic stopped, and returns the audit.
func (b *Business) AwaitCopies(ctx context.Context, limit time.Duration) (validate.Report, error) {
	if err := b.Stop(); err != nil {
		return validate.Report{}, err
	}
	var report validate.Report
	err := b.fleet.await(ctx, limit, "every copy of the ledger can be audited", func(ctx context.Context) (string, error) {
		var err error
		report, err = b.Audit(ctx)
		return "", err
	})
	return report, err
}

func seconds(d time.Duration) float64 {
	return float64(d.Round(time.Millisecond)) / float64(time.Second)
}
