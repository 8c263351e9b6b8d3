package controller

import (
	"context"
	"crypto"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/failover/evidence"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// EvidenceKey is the key in the ConfigMap EvidenceName(run) of Namespace that
// holds the run's records as JSON lines.
const EvidenceKey = "records.jsonl"

// EvidenceName is the ConfigMap that holds the evidence of a run.
func EvidenceName(run string) string { return "evidence-" + run }

// recorder keeps the evidence of the runs of one term in the hub's store, where
// every center has it. It belongs to the turn that runs now: it is not safe for
// concurrent use. Chains are read and written beside each other, because a turn may
// carry on hundreds of runs.
type recorder struct {
	client client.Client
	member string
	signer crypto.Signer
	chains map[string]*chain
}

type chain struct {
	records []evidence.Record
	pending []evidence.Record // noted, not yet in the chain
	stored  *corev1.ConfigMap // as last read or written
	loaded  bool
	dirty   bool
	phase   v1alpha1.RunPhase // last announced
}

func newRecorder(cl client.Client, member string, signer crypto.Signer) *recorder {
	return &recorder{client: cl, member: member, signer: signer, chains: map[string]*chain{}}
}

// reset forgets what an earlier term held: another leader may have gone on.
func (r *recorder) reset() {
	clear(r.chains)
}

// note adds a fact; it enters the chain with the next seal.
func (r *recorder) note(n failover.Note) {
	c := r.chains[n.Run]
	if c == nil {
		c = &chain{}
		r.chains[n.Run] = c
	}
	c.pending = append(c.pending, evidence.Record{Kind: string(n.Kind), Subject: n.Subject, Text: n.Text, Mark: string(n.Mark),
		At: time.Now(), SinceHeardMicros: n.SinceHeard.Microseconds(), By: r.member})
}

// entered is true once for each phase of a run.
func (r *recorder) entered(run string, phase v1alpha1.RunPhase) bool {
	c := r.chains[run]
	if c == nil || c.phase == phase {
		return false
	}
	c.phase = phase
	return true
}

// seal appends to the chains of runs what was noted, and writes the heads into their
// journals. What fails is tried again in a later turn.
func (r *recorder) seal(ctx context.Context, runs []*v1alpha1.RecoveryRun, failed func(run string, err error)) {
	r.load(ctx, runs, failed)
	for _, run := range runs {
		if c := r.chains[run.Name]; c != nil && len(c.pending) > 0 && c.loaded {
			r.append(run, c, failed)
		}
	}
}

func (r *recorder) append(run *v1alpha1.RecoveryRun, c *chain, failed func(run string, err error)) {
	for _, record := range c.pending {
		c.records = evidence.Append(c.records, run.Name, record)
	}
	c.pending, c.dirty = nil, true
	head := v1alpha1.EvidenceHead{Head: evidence.Head(c.records, run.Name), Records: int32(len(c.records))}
	if r.signer != nil {
		signature, err := evidence.Sign(r.signer, run.Name, head.Head)
		if err != nil {
			failed(run.Name, err)
		}
		head.Signature = signature
	}
	run.Status.Evidence = head
}

// load reads what an earlier leader has written of the runs of which something was
// noted.
func (r *recorder) load(ctx context.Context, runs []*v1alpha1.RecoveryRun, failed func(run string, err error)) {
	var beside errgroup.Group
	beside.SetLimit(writesAtOnce)
	errs := make([]error, len(runs))
	for i, run := range runs {
		if c := r.chains[run.Name]; c != nil && len(c.pending) > 0 && !c.loaded {
			beside.Go(func() error {
				errs[i] = r.read(ctx, run, c)
				return nil
			})
		}
	}
	_ = beside.Wait() // each has its error
	for i, err := range errs {
		if err != nil {
			failed(runs[i].Name, err)
		}
	}
}

func (r *recorder) read(ctx context.Context, run *v1alpha1.RecoveryRun, c *chain) error {
	if run.Status.Evidence.Records > 0 {
		var cm corev1.ConfigMap
		err := r.client.Get(ctx, client.ObjectKey{Namespace: Namespace, Name: EvidenceName(run.Name)}, &cm)
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("read evidence: %w", err)
		}
		if err == nil {
			if c.records, err = evidence.Decode([]byte(cm.Data[EvidenceKey])); err != nil {
				return err
			}
			c.stored = &cm
		}
	}
	c.loaded = true
	return nil
}

// flush writes every chain that has grown, of those that are wanted.
func (r *recorder) flush(ctx context.Context, bound time.Duration, wanted func(run string) bool) error {
	var beside errgroup.Group
	beside.SetLimit(writesAtOnce)
	for run, c := range r.chains {
		if c.dirty && wanted(run) {
			beside.Go(func() error {
				bounded, cancel := context.WithTimeout(ctx, bound)
				defer cancel()
				if err := r.write(bounded, run, c); err != nil {
					return fmt.Errorf("write evidence of run %s: %w", run, err)
				}
				return nil
			})
		}
	}
	return beside.Wait()
}

// write stores one chain.
func (r *recorder) write(ctx context.Context, run string, c *chain) error {
	body, err := evidence.Encode(c.records)
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: EvidenceName(run), Labels: map[string]string{"tripod.dev/run": run}}}
	if c.stored != nil {
		cm = c.stored.DeepCopy()
	}
	if err != nil {
		return err
	}
	cm.Data = map[string]string{EvidenceKey: string(body)}
	if cm.ResourceVersion == "" {
		err = r.client.Create(ctx, cm)
	} else {
		err = r.client.Update(ctx, cm)
	}
	switch {
	case err == nil:
		c.stored, c.dirty = cm, false
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		r.rebase(ctx, run, c)
	}
	return err
}

// rebase puts this leader's records behind those that another one stored.
func (r *recorder) rebase(ctx context.Context, run string, c *chain) {
	var cm corev1.ConfigMap
	if err := r.client.Get(ctx, client.ObjectKey{Namespace: Namespace, Name: EvidenceName(run)}, &cm); err != nil {
		return // tried again with the next flush
	}
	stored, err := evidence.Decode([]byte(cm.Data[EvidenceKey]))
	if err != nil {
		return
	}
	have := map[string]bool{}
	for _, record := range stored {
		have[record.Hash] = true
	}
	for _, record := range c.records {
		if !have[record.Hash] {
			stored = evidence.Append(stored, run, record)
		}
	}
	c.records, c.stored = stored, &cm
}
