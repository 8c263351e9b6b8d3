package controller

import (
	"crypto"
	"fmt"
	"time"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/failover/evidence"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// recorder puts what a turn notes of a run into the run's evidence, in the write of the
// journal that it accounts for: so either both are committed or none, and no leader can
// add to a chain that another one has gone on with. What has grown there is moved to
// its place by the archive. It belongs to the controller's loop.
type recorder struct {
	member string
	signer crypto.Signer // nil: heads are not signed
	// done is what was done for each run since its journal was last written: commands
	// and hooks. It enters the evidence with the next write.
	done map[string][]evidence.Record
}

// journalFull is how many bytes of evidence a journal may hold. A run whose archive fails
// must not become too large to be written: then it could not go on.
const journalFull = 512 << 10

// reset forgets an earlier term.
func (r *recorder) reset() { r.done = map[string][]evidence.Record{} }

// note adds what was done now.
func (r *recorder) note(n failover.Note) {
	r.done[n.Run] = append(r.done[n.Run], r.record(n))
}

func (r *recorder) record(n failover.Note) evidence.Record {
	return evidence.Record{Kind: string(n.Kind), Subject: n.Subject, Text: n.Text, Mark: string(n.Mark),
		At: time.Now(), SinceHeardMicros: n.SinceHeard.Microseconds(), By: r.member}
}

// seal appends to the evidence in a run's journal, which is about to be written, what was
// done for it and what was noted with this write, and signs the new head.
func (r *recorder) seal(run *v1alpha1.RecoveryRun, notes []failover.Note) error {
	added := append([]evidence.Record(nil), r.done[run.Name]...)
	for _, n := range notes {
		added = append(added, r.record(n))
	}
	if len(added) == 0 {
		return nil
	}
	e := &run.Status.Evidence
	if len(e.Recent) > journalFull {
		return fmt.Errorf("the journal holds %d bytes of evidence that could not be archived: what follows is not recorded; see why in this log, and mend ConfigMap %s/%s",
			len(e.Recent), evidence.Namespace, evidence.ConfigMap(run.Name, 1))
	}
	head := e.Head
	if e.Records == 0 {
		head = evidence.Genesis(run.Name)
	}
	for i := range added {
		added[i] = evidence.Link(run.Name, head, int(e.Records)+i+1, added[i])
		head = added[i].Hash
	}
	lines, err := evidence.Encode(added)
	if err != nil {
		return err
	}
	*e = v1alpha1.EvidenceHead{Head: head, Records: e.Records + int32(len(added)), Recent: e.Recent + string(lines)}
	if r.signer == nil {
		return nil
	}
	if e.Signature, err = evidence.Sign(r.signer, run.Name, head); err != nil {
		return fmt.Errorf("the head of the evidence is not signed: %w", err)
	}
	return nil
}

// committed notes that the journal of a run was written after it was sealed.
func (r *recorder) committed(run string) { delete(r.done, run) }

// byRun are the notes of each run, in their order.
func byRun(notes []failover.Note) map[string][]failover.Note {
	out := map[string][]failover.Note{}
	for _, n := range notes {
		out[n.Run] = append(out[n.Run], n)
	}
	return out
}
