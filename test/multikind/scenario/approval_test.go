package scenario

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/deploy/ledger"
	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/test/multikind/fault"
	"tripod.dev/tripod/test/multikind/traffic"
	"tripod.dev/tripod/test/multikind/validate"
)

// The archive is a second ledger, in its own namespace, with one copy in a city
// and one far away that follows it asynchronously.
const (
	archivePort = "30433"
	archiveHome = "north-1"
)

// archive is its namespace: another one each time that it is deployed, because clusters
// refuse a dataset of the same name that starts again at a lower epoch.
var archive string

// S3: the primary's center loses power and only an asynchronous copy in another
// region is left. The run stops and shows the loss, goes on only after an
// approval that accepts it, and loses no more than was shown.
func TestS3OnlyAnAsynchronousCopyLeft(t *testing.T) {
	f := fleet(t)
	b := deployArchive(t, f)
	if err := b.AwaitTransfers(t.Context(), 200, time.Minute); err != nil {
		t.Fatal(err)
	}
	effect := loseUnreplicated(t, b)
	run := awaitQuestion(t, f)
	shown := refuseUnlessAccepted(t, f, run)
	out := must(t)(f.Tripodctl(t.Context(), "approve", run, "--accept-loss", strconv.FormatInt(shown, 10), "--comment", "the city is dark"))
	says(t, out, "Approve of run "+run, "tripod:admin")
	if err := f.awaitRun(t.Context(), run, v1alpha1.RunCompleted); err != nil {
		t.Fatal(err)
	}
	if err := b.awaitAfter(t.Context(), effect.Monotonic, time.Minute); err != nil {
		t.Errorf("transfers on %s: %v", remoteCenter, err)
	}
	boundedLoss(t, b, effect, time.Duration(shown)*time.Second)
	if verified, err := f.verifyEvidence(t.Context(), run); err != nil || !verified {
		t.Errorf("the evidence of %s: verified %t, %v", run, verified, err)
	}
	if err := f.Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	archiveReturns(t, f)
}

// loseUnreplicated cuts the power of the primary's center while its copy far
// away lags: transfers that were acknowledged are surely lost.
func loseUnreplicated(t *testing.T, b *Business) fault.Effect {
	t.Helper()
	f := b.fleet
	// The leader hears both sides of the cut, so that it stays the leader.
	if err := f.LeadFrom(t.Context(), "north-2"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Inject(t.Context(), fault.Fault{Kind: fault.Cut, Center: archiveHome, Peer: remoteCenter}); err != nil {
		t.Fatal(err)
	}
	if err := b.AwaitTransfers(t.Context(), 100, time.Minute); err != nil {
		t.Fatal(err)
	}
	effect, err := f.Inject(t.Context(), fault.Fault{Kind: fault.PowerOff, Center: archiveHome})
	if err == nil {
		_, err = f.Inject(t.Context(), fault.Fault{Kind: fault.Heal})
	}
	if err != nil {
		t.Fatal(err)
	}
	return effect
}

// deployArchive places the archive and starts its clients.
func deployArchive(t *testing.T, f *Fleet) *Business {
	t.Helper()
	archive = fmt.Sprintf("archive-%d", time.Now().Unix())
	var clusters []ledger.Cluster
	for _, c := range f.Lab.Centers() {
		if c.Name == archiveHome || c.Name == remoteCenter {
			clusters = append(clusters, ledger.Cluster{Name: c.Name, Region: c.Region, Address: c.Address.String()})
		}
	}
	manifests, err := ledger.Render(ledger.Params{Clusters: clusters,
		HostPathRoot: "/var/lib/" + archive})
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer(
		"namespace: "+ledger.Namespace, "namespace: "+archive, "  name: "+ledger.Namespace+"\n", "  name: "+archive+"\n",
		"ledger-db."+ledger.Namespace+".svc", "ledger-db."+archive+".svc",
		ledger.Host, "ledger."+archive+".example.test", ledger.Port, archivePort,
	).Replace(string(manifests))
	must(t)(f.Kubectl(t.Context(), strings.NewReader(text), "--context", "hub", "apply", "--server-side", "-f", "-"))
	t.Cleanup(func() { dropArchive(t, f) })
	err = f.await(t.Context(), 2*time.Minute, "the archive's far copy streams", func(ctx context.Context) (string, error) {
		d, err := f.archiveDataset(ctx)
		if err != nil {
			return "", err
		}
		if m := memberOf(d, remoteCenter); m == nil || m.State != v1alpha1.StateStreaming {
			return states(d), nil
		}
		return "", nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return openArchive(t, f)
}

func openArchive(t *testing.T, f *Fleet) *Business {
	t.Helper()
	config, err := f.ledgerConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	config.Host, config.Port = "ledger."+archive+".example.test", archivePort
	config.Dir, config.Run = filepath.Join(t.TempDir(), "journals"), archive
	b := &Business{fleet: f, ledger: traffic.New(config)}
	err = f.await(t.Context(), time.Minute, "the archive is open", func(ctx context.Context) (string, error) { return "", b.ledger.Open(ctx) })
	if err != nil {
		t.Fatal(err)
	}
	b.Start(t.Context())
	measured(t, b)
	return b
}

// dropArchive takes the archive away and waits until the clusters have, too: the
// scenarios after this one have one application.
func dropArchive(t *testing.T, f *Fleet) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 3*time.Minute)
	defer cancel()
	if err := f.Repair(ctx); err != nil {
		t.Errorf("repair: %v", err)
	}
	if _, err := f.Kubectl(ctx, nil, "--context", "hub", "delete", "namespace", archive, "--ignore-not-found", "--timeout", "60s"); err != nil {
		t.Errorf("delete the archive: %v", err)
	}
	for _, c := range []string{archiveHome, remoteCenter} {
		err := f.await(ctx, time.Minute, "the archive's database is gone from "+c, func(ctx context.Context) (string, error) {
			out, err := f.Kubectl(ctx, nil, "--context", "direct-"+c, "-n", archive, "get", "pods,statefulsets", "-o", "name")
			return strings.TrimSpace(out), err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func (f *Fleet) archiveDataset(ctx context.Context) (*v1alpha1.Dataset, error) {
	api, err := f.API(archiveHome)
	if err != nil {
		return nil, err
	}
	var d v1alpha1.Dataset
	return &d, api.Get(ctx, client.ObjectKey{Namespace: archive, Name: "ledger-db"}, &d)
}

func memberOf(d *v1alpha1.Dataset, cluster string) *v1alpha1.DatasetMemberStatus {
	for i := range d.Status.Members {
		if d.Status.Members[i].Cluster == cluster {
			return &d.Status.Members[i]
		}
	}
	return nil
}

// archiveRun is the newest run of the archive.
func (f *Fleet) archiveRun(ctx context.Context) (*v1alpha1.RecoveryRun, error) {
	api, err := f.API(archiveHome)
	if err != nil {
		return nil, err
	}
	var list v1alpha1.RecoveryRunList
	if err := api.List(ctx, &list); err != nil {
		return nil, err
	}
	var newest *v1alpha1.RecoveryRun
	for i, r := range list.Items {
		if r.Spec.Application.Namespace == archive && (newest == nil || newest.CreationTimestamp.Before(&r.CreationTimestamp)) {
			newest = &list.Items[i]
		}
	}
	if newest == nil {
		return nil, errors.New("the archive has no run")
	}
	return newest, nil
}

func (f *Fleet) awaitRun(ctx context.Context, name string, phase v1alpha1.RunPhase) error {
	return f.await(ctx, time.Minute, fmt.Sprintf("the run %s is %s", name, phase), func(ctx context.Context) (string, error) {
		run, err := f.archiveRun(ctx)
		if err != nil || run.Status.Phase == phase {
			return "", err
		}
		return fmt.Sprintf("%s is %s: %s", run.Name, run.Status.Phase, run.Status.Message), nil
	})
}

// awaitQuestion waits until the run asks, and returns its name.
func awaitQuestion(t *testing.T, f *Fleet) string {
	t.Helper()
	var run *v1alpha1.RecoveryRun
	err := f.await(t.Context(), time.Minute, "the archive's run awaits an approval", func(ctx context.Context) (missing string, err error) {
		if run, err = f.archiveRun(ctx); err != nil || run.Status.Phase == v1alpha1.RunAwaitingApproval {
			return "", err
		}
		return fmt.Sprintf("%s is %s: %s", run.Name, run.Status.Phase, run.Status.Message), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	says(t, run.Status.Message, remoteCenter, "not in the committed sync set", "possible loss", "tripodctl approve "+run.Name)
	return run.Name
}

// refuseUnlessAccepted shows that nothing short of the loss that is shown makes
// the run go on, and returns that loss in seconds.
func refuseUnlessAccepted(t *testing.T, f *Fleet, name string) int64 {
	t.Helper()
	run, err := f.archiveRun(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	loss := run.Status.Loss
	if loss == nil || !loss.Possible || loss.Seconds < 1 {
		t.Fatalf("the run shows the loss %+v, wants a possible one with a bound", loss)
	}
	says(t, must(t)(f.Tripodctl(t.Context(), "run", name)), "AwaitingApproval", loss.Message)
	enough := fmt.Sprintf("--accept-loss %d", loss.Seconds)
	for _, arguments := range [][]string{{}, {"--accept-loss", strconv.FormatInt(loss.Seconds-1, 10)}} {
		out, err := f.Tripodctl(t.Context(), append([]string{"approve", name}, arguments...)...)
		if err == nil {
			t.Fatalf("tripodctl approve %v: %s", arguments, out)
		}
		says(t, err.Error(), name, "may lose writes", enough)
	}
	// Past tripodctl, too: the hub judges, not its client.
	api, err := f.API(archiveHome)
	if err != nil {
		t.Fatal(err)
	}
	tooLittle := &v1alpha1.Approval{Spec: v1alpha1.ApprovalSpec{Run: name, Decision: v1alpha1.DecisionApprove}}
	tooLittle.GenerateName = name + "-"
	tooLittle.Spec.AcceptLoss = &v1alpha1.AcceptedLoss{Seconds: loss.Seconds - 1}
	if err := api.Create(t.Context(), tooLittle); err != nil {
		t.Fatal(err)
	}
	err = f.Throughout(t.Context(), 5*time.Second, "the run waits", func(ctx context.Context) (string, error) {
		run, err := f.archiveRun(ctx)
		if err == nil && run.Status.Phase != v1alpha1.RunAwaitingApproval {
			return fmt.Sprintf("it is %s: %s", run.Status.Phase, run.Status.Message), nil
		}
		return "", err
	})
	if err != nil {
		t.Fatal(err)
	}
	return loss.Seconds
}

// boundedLoss: what was acknowledged and is missing was acknowledged no longer
// before the fault than was shown to the approver.
func boundedLoss(t *testing.T, b *Business, effect fault.Effect, shown time.Duration) {
	t.Helper()
	if err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	records, promoted := b.archiveCopy(t)
	present := map[string]bool{}
	for _, transfer := range promoted.Transfers {
		present[transfer.ID] = true
	}
	lost := 0
	for _, r := range records {
		if r.Event != traffic.Acknowledged || present[r.ID] {
			continue
		}
		lost++
		if before := effect.Monotonic - time.Duration(r.Monotonic); before > shown {
			t.Errorf("%s was acknowledged %s before the fault and is lost: %s were shown", r.ID, before, shown)
		}
	}
	if lost < 100 {
		t.Errorf("%d transfers are lost, wants the 100 that were acknowledged during the cut: the scenario lost nothing", lost)
	}
	report := validate.Audit(records, []validate.Copy{promoted}, b.ledger.Config().Total())
	counted := report
	b.audited = &counted
	t.Logf("shown %s, lost %d of %d; audit: %+v", shown, lost, report.Acknowledged, report)
	report.Lost = 0
	if err := report.Err(); err != nil {
		t.Error(err)
	}
}

// archiveCopy reads the clients' journals and the archive's copy far away.
func (b *Business) archiveCopy(t *testing.T) ([]traffic.Record, validate.Copy) {
	t.Helper()
	config := b.ledger.Config()
	records, err := traffic.ReadJournals(config.Dir)
	if err != nil {
		t.Fatal(err)
	}
	copied, err := validate.ReadCopy(t.Context(), validate.Endpoint{Name: remoteCenter, Address: b.fleet.address(remoteCenter) + ":" + archivePort},
		config.User, config.Password, config.Database)
	if err != nil {
		t.Fatal(err)
	}
	return records, copied
}

// archiveReturns: the old primary becomes a replica. What it alone holds is
// discarded only when somebody has approved that.
func archiveReturns(t *testing.T, f *Fleet) {
	t.Helper()
	approved := false
	err := f.await(t.Context(), 2*time.Minute, archiveHome+" is a replica of the archive", func(ctx context.Context) (string, error) {
		d, err := f.archiveDataset(ctx)
		if err != nil {
			return "", err
		}
		m := memberOf(d, archiveHome)
		if m != nil && m.State == v1alpha1.StateStreaming && m.Role == v1alpha1.RoleReplica {
			return "", nil
		}
		if m != nil && m.State == v1alpha1.StateDiverged && !approved {
			f.tell(states(d))
			diverged := meta.FindStatusCondition(d.Status.Conditions, "Diverged")
			if diverged == nil {
				return "the dataset does not say that it has diverged", nil
			}
			_, subject, _ := strings.Cut(diverged.Message, "tripodctl approve ")
			out, err := f.Tripodctl(ctx, "approve", subject)
			if err != nil {
				return "", err
			}
			approved = true
			f.tell(strings.TrimSpace(out))
		}
		return states(d), nil
	})
	if err != nil {
		t.Error(err)
	}
}
