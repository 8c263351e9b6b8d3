package scenario

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/deploy/ledger"
	"tripod.dev/tripod/test/multikind/traffic"
	"tripod.dev/tripod/test/multikind/validate"
)

// Business is the ledger on a fleet: deployed by policy, used by clients,
// audited at the end.
type Business struct {
	fleet  *Fleet
	ledger *traffic.Ledger
	stop   context.CancelFunc
	done   chan error

	// longest is the longest outage that was measured, audited the last audit.
	longest time.Duration
	audited *validate.Report
}

// Deploy applies the ledger's manifests to the hub and waits until everything
// runs and the data is protected.
func (f *Fleet) Deploy(ctx context.Context) error {
	var clusters []ledger.Cluster
	for _, c := range f.Lab.Centers() {
		clusters = append(clusters, ledger.Cluster{Name: c.Name, Region: c.Region, Address: c.Address.String()})
	}
	manifests, err := ledger.Render(ledger.Params{Clusters: clusters})
	if err != nil {
		return fmt.Errorf("render the ledger's manifests: %w", err)
	}
	// The same command as a person would use; kinds and namespace come first in
	// the file, so one apply is enough.
	if _, err := f.Kubectl(ctx, strings.NewReader(string(manifests)), "--context", "hub", "apply", "--server-side", "-f", "-"); err != nil {
		return fmt.Errorf("apply the ledger: %w", err)
	}
	if err := f.AwaitPlacements(ctx, 3*time.Minute); err != nil {
		return err
	}
	return f.AwaitApplication(ctx, 3*time.Minute)
}

// emptyJournals is the folder of the clients' journals in folder. What an earlier run
// has left there is removed: its lab, and the ledger that it is about, may be gone, and
// an audit would miss each of its transfers.
func emptyJournals(folder string) (string, error) {
	journals := filepath.Join(folder, "journals")
	if err := os.RemoveAll(journals); err != nil {
		return "", fmt.Errorf("clear the journals: %w", err)
	}
	return journals, nil
}

// OpenBusiness makes the ledger's tables and returns the business, without
// traffic yet. Journals go to dir.
func (f *Fleet) OpenBusiness(ctx context.Context, dir, run string) (*Business, error) {
	config, err := f.ledgerConfig(ctx)
	if err != nil {
		return nil, err
	}
	config.Dir, config.Run = dir, run
	b := &Business{fleet: f, ledger: traffic.New(config)}
	return b, f.await(ctx, time.Minute, "the ledger is open", func(ctx context.Context) (string, error) {
		return "", b.ledger.Open(ctx)
	})
}

// ledgerConfig reads the clients' credentials where a person would find them.
func (f *Fleet) ledgerConfig(ctx context.Context) (traffic.Config, error) {
	api, err := f.API()
	if err != nil {
		return traffic.Config{}, err
	}
	var secret corev1.Secret
	if err := api.Get(ctx, client.ObjectKey{Namespace: ledger.Namespace, Name: ledger.CredentialsSecret}, &secret); err != nil {
		return traffic.Config{}, fmt.Errorf("read the ledger's credentials: %w", err)
	}
	return traffic.Config{
		Host: ledger.Host, Port: ledger.Port, Resolvers: f.Resolvers(),
		User: ledger.ClientUser, Password: string(secret.Data[ledger.ClientPasswordKey]), Database: ledger.Database,
	}, nil
}

// Start lets the clients work until Stop.
func (b *Business) Start(ctx context.Context) {
	ctx, b.stop = context.WithCancel(ctx)
	b.done = make(chan error, 1)
	go func() { b.done <- b.ledger.Run(ctx) }()
}

// Stop ends the traffic and waits for its clients.
func (b *Business) Stop() error {
	if b.stop == nil {
		return nil
	}
	b.stop()
	b.stop = nil
	return <-b.done
}

// AwaitTransfers waits until n more transfers are acknowledged.
func (b *Business) AwaitTransfers(ctx context.Context, n int64, limit time.Duration) error {
	counters := b.ledger.Counters()
	want := counters.Acknowledged.Load() + n
	return b.fleet.await(ctx, limit, fmt.Sprintf("%d more transfers are acknowledged", n), func(context.Context) (string, error) {
		if got := counters.Acknowledged.Load(); got < want {
			return fmt.Sprintf("%d to go (refused %d, unknown %d)", want-got, counters.Refused.Load(), counters.Unknown.Load()), nil
		}
		return "", nil
	})
}

// Outage returns the time from a fault, given as its CLOCK_MONOTONIC in
// nanoseconds, until a transfer that was sent after it was acknowledged.
func (b *Business) Outage(fault time.Duration) (time.Duration, error) {
	records, err := traffic.ReadJournals(b.ledger.Config().Dir)
	if err != nil {
		return 0, err
	}
	sentAfter := map[string]bool{}
	first := int64(-1)
	for _, r := range records {
		if r.Event == traffic.Sent && r.Monotonic > int64(fault) {
			sentAfter[r.ID] = true
		}
	}
	for _, r := range records {
		if r.Event == traffic.Acknowledged && sentAfter[r.ID] && (first < 0 || r.Monotonic < first) {
			first = r.Monotonic
		}
	}
	if first < 0 {
		return 0, errors.New("no transfer sent after the fault was acknowledged")
	}
	return time.Duration(first) - fault, nil
}

// longestPause is the longest time without an acknowledgement since a moment on
// the clients' clock.
func (b *Business) longestPause(since int64) (time.Duration, error) {
	records, err := traffic.ReadJournals(b.ledger.Config().Dir)
	if err != nil {
		return 0, err
	}
	at := []int64{since}
	for _, r := range records {
		if r.Event == traffic.Acknowledged && r.Monotonic > since {
			at = append(at, r.Monotonic)
		}
	}
	slices.Sort(at)
	longest := int64(0)
	for i := 1; i < len(at); i++ {
		longest = max(longest, at[i]-at[i-1])
	}
	return time.Duration(longest), nil
}

// Audit stops the traffic and compares the journals with every copy that
// answers; copies in the centers of gone are not asked.
func (b *Business) Audit(ctx context.Context, gone ...string) (validate.Report, error) {
	if err := b.Stop(); err != nil {
		return validate.Report{}, err
	}
	config := b.ledger.Config()
	records, err := traffic.ReadJournals(config.Dir)
	if err != nil {
		return validate.Report{}, err
	}
	var copies []validate.Copy
	for _, c := range b.fleet.Lab.Centers() {
		if slices.Contains(gone, c.Name) {
			continue
		}
		copied, err := validate.ReadCopy(ctx, validate.Endpoint{Name: c.Name, Address: c.Address.String() + ":" + ledger.Port},
			config.User, config.Password, config.Database)
		if err != nil {
			return validate.Report{}, err
		}
		copies = append(copies, copied)
	}
	report := validate.Audit(records, copies, config.Total())
	b.audited = &report
	return report, nil
}
