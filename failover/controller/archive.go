package controller

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/failover/evidence"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

const (
	// archiveBeyond is the size in bytes of the evidence in a journal beyond which it is
	// archived before the run ends.
	archiveBeyond = 64 << 10
	// archiveRests is for how many times as long as a round took the archive rests after
	// it: moving evidence must not be in the way of what it is about.
	archiveRests = 3
	archiveBatch = 16
	// archiveRetry is how long a run waits whose evidence could not be archived.
	archiveRetry = time.Minute
)

// archive moves the evidence of runs that have ended from their journals to a ConfigMap
// each, which outlives the run. It adds only what is committed in a journal, so that an
// archive is always a beginning of the chain, whoever wrote it. One round at a time,
// beside the turns.
type archive struct {
	client   client.Client
	statuses Statuses
	clock    func() time.Duration
	log      *slog.Logger
	// wrote is told of a run whose journal was cut.
	wrote func(*v1alpha1.RecoveryRun)
	// stuck is how many runs' evidence could not be moved.
	stuck prometheus.Gauge

	mu      sync.Mutex
	busy    bool
	rest    time.Duration            // no round before this
	refused map[string]time.Duration // runs that are not tried before this
}

// reset forgets an earlier term.
func (a *archive) reset() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.busy, a.rest, a.refused = false, 0, map[string]time.Duration{}
	a.stuck.Set(0)
}

// due takes a round if it is time for one and there is something to move. While many
// runs are on their way only journals that grow too large are: to move evidence is three
// requests for each run, and it is as safe where it is.
func (a *archive) due(runs []*v1alpha1.RecoveryRun) (round []*v1alpha1.RecoveryRun) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.clock()
	if a.busy || now < a.rest {
		return nil
	}
	maps.DeleteFunc(a.refused, func(_ string, until time.Duration) bool { return now >= until })
	quiet := underWay(runs) <= fewAccounts
	for _, run := range runs {
		recent := len(run.Status.Evidence.Recent)
		_, refused := a.refused[run.Name]
		if recent > 0 && !refused && (quiet && failover.Finished(run.Status.Phase) || recent > archiveBeyond) {
			if round = append(round, run); len(round) == archiveBatch {
				break
			}
		}
	}
	if a.busy = len(round) > 0; !a.busy {
		a.stuck.Set(float64(len(a.refused)))
	}
	return round
}

// underWay counts the runs that the engine works at: those that wait for a person may
// wait for days.
func underWay(runs []*v1alpha1.RecoveryRun) (n int) {
	for _, run := range runs {
		switch phase := run.Status.Phase; {
		case failover.Finished(phase), phase == v1alpha1.RunPaused, phase == v1alpha1.RunAwaitingApproval:
		default:
			n++
		}
	}
	return n
}

// round archives some runs, one after the other.
func (a *archive) round(ctx context.Context, runs []*v1alpha1.RecoveryRun) {
	begun := a.clock()
	refused := map[string]time.Duration{}
	for _, run := range runs {
		if ctx.Err() != nil {
			return // a new term has begun, or none will
		}
		switch err := a.move(ctx, run.DeepCopy()); {
		case err == nil, ctx.Err() != nil, apierrors.IsConflict(err), apierrors.IsAlreadyExists(err), apierrors.IsNotFound(err):
		default:
			refused[run.Name] = a.clock() + archiveRetry
			a.log.Warn("evidence is not archived yet: it stays in the run's journal", "run", run.Name, "error", err)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if ctx.Err() == nil {
		now := a.clock()
		a.busy, a.rest = false, now+archiveRests*(now-begun)
		maps.Copy(a.refused, refused)
		a.stuck.Set(float64(len(a.refused)))
	}
}

// move puts what the journal of a run holds behind what is archived, and then cuts it
// from the journal.
func (a *archive) move(ctx context.Context, run *v1alpha1.RecoveryRun) error {
	recent, err := evidence.Decode([]byte(run.Status.Evidence.Recent))
	if err != nil {
		return fmt.Errorf("the evidence in the journal of run %s: %w", run.Name, err)
	}
	archived, last, err := a.archived(ctx, run)
	if err != nil {
		return err
	}
	chain, err := evidence.Join(run.Name, archived, recent)
	if err != nil {
		return err
	}
	if err := a.add(ctx, run, last, chain[len(archived):]); err != nil {
		return err
	}
	run.Status.Evidence.Recent = ""
	if err := a.statuses.Update(ctx, run); err != nil {
		return err
	}
	a.wrote(run)
	return nil
}

// part is a ConfigMap of a run's evidence.
type part struct {
	*corev1.ConfigMap
	number int
}

func (p part) full() bool { return evidence.Full(p.Data[evidence.ConfigMapKey]) }

// archived is what is archived of a run's chain, and the last part of it, which may be
// still to be made.
func (a *archive) archived(ctx context.Context, run *v1alpha1.RecoveryRun) (chain []evidence.Record, last part, err error) {
	for number := 1; ; number++ {
		if last, err = a.place(ctx, run, number); err != nil {
			return nil, last, err
		}
		records, err := evidence.Decode([]byte(last.Data[evidence.ConfigMapKey]))
		if err != nil {
			return nil, last, fmt.Errorf("ConfigMap %s/%s: %w", last.Namespace, last.Name, err)
		}
		chain = append(chain, records...)
		if !last.full() {
			return chain, last, nil
		}
	}
}

// add stores records behind those in the last part, and in more parts if they do not fit.
func (a *archive) add(ctx context.Context, run *v1alpha1.RecoveryRun, last part, records []evidence.Record) error {
	for len(records) > 0 {
		if last.full() {
			next, err := a.place(ctx, run, last.number+1)
			if err != nil {
				return err
			}
			last = next
		}
		text := last.Data[evidence.ConfigMapKey]
		for len(records) > 0 && !evidence.Full(text) {
			line, err := evidence.Encode(records[:1])
			if err != nil {
				return err
			}
			text, records = text+string(line), records[1:]
		}
		last.Data = map[string]string{evidence.ConfigMapKey: text}
		if err := a.store(ctx, last.ConfigMap); err != nil {
			return err
		}
	}
	return nil
}

func (a *archive) store(ctx context.Context, cm *corev1.ConfigMap) error {
	if cm.ResourceVersion == "" {
		return a.client.Create(ctx, cm)
	}
	return a.client.Update(ctx, cm)
}

// place is the ConfigMap of a part of a run's evidence, as it is or as it will be made.
// What a run of this name, deleted since, has left there is put aside first.
func (a *archive) place(ctx context.Context, run *v1alpha1.RecoveryRun, number int) (part, error) {
	name, uid := evidence.ConfigMap(run.Name, number), string(run.UID)
	var found corev1.ConfigMap
	err := a.client.Get(ctx, client.ObjectKey{Namespace: evidence.Namespace, Name: name}, &found)
	switch {
	case apierrors.IsNotFound(err):
		return part{&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: evidence.Namespace, Name: name,
			Labels: map[string]string{"tripod.dev/run": run.Name}, Annotations: map[string]string{evidence.RunUID: uid}}}, number}, nil
	case err != nil:
		return part{}, fmt.Errorf("read what is archived of run %s: %w", run.Name, err)
	case evidence.OfRun(found.Annotations, uid):
		return part{&found, number}, nil
	}
	aside := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: found.Namespace, Name: name + "." + found.Annotations[evidence.RunUID],
		Labels: found.Labels, Annotations: found.Annotations}, Data: found.Data}
	if err := a.client.Create(ctx, aside); err != nil && !apierrors.IsAlreadyExists(err) {
		return part{}, fmt.Errorf("put the evidence of an older run %s aside: %w", run.Name, err)
	}
	found.Annotations, found.Data = map[string]string{evidence.RunUID: uid}, nil
	return part{&found, number}, nil
}
