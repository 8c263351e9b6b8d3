package scenario

import (
	"context"
	"fmt"
	"testing"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// S16: the API that stops a copy says yes and has done nothing. The copy is one that no
// guard of Tripod's stops, behind a driver out of process. The agent finds it writing, so
// nobody is promoted for however long, the old primary goes on, and the run says where
// somebody must look. When the API tells the truth the run completes by itself; no line
// is lost, and never do two copies accept.
func TestS16TheFenceSaysYesAndDoesNothing(t *testing.T) {
	f := fleet(t)
	before := deployShelf(t, f)
	source := before.Status.Primary
	target := f.others(source, remoteCenter)[0]
	w := f.startWriters(t)
	w.await(t, source, 50)
	if err := f.lie(t.Context(), source, true); err != nil {
		t.Fatal(err)
	}
	run := f.order(t, "failover", shelf+"/"+shelf, "--to", target)
	address := f.shelfAddress(source)
	f.saysWhy(t, run, "driver register says that its copy in "+source+" has stopped, which is not believed", address+" accepts connections", "tripodctl attest "+run)
	wrote := w.count(source)
	err := f.Throughout(t.Context(), partitionLasts, "nobody is promoted on the word of the API", func(ctx context.Context) (string, error) {
		d, err := f.register(ctx)
		if err != nil {
			return "", err
		}
		if d.Status.Phase != v1alpha1.DatasetFencing || d.Status.Epoch != before.Status.Epoch+1 || w.count(target) != 0 {
			return fmt.Sprintf("the dataset is %s at epoch %d with the proof %q; %s has acknowledged %d lines", d.Status.Phase, d.Status.Epoch, d.Status.FenceProof, target, w.count(target)), nil
		}
		return "", nil
	})
	if err != nil {
		t.Error(err)
	}
	if n := w.count(source) - wrote; n < 10 {
		t.Errorf("%s has acknowledged %d lines in %v: its clients were to notice nothing", source, n, partitionLasts)
	}
	f.saysWhy(t, run, address+" accepts connections")

	if err := f.lie(t.Context(), source, false); err != nil {
		t.Fatal(err)
	}
	f.comesTo(t, run, v1alpha1.RunCompleted)
	w.await(t, target, 50)
	after := f.shelfProtected(t, before.Status.Epoch+1)
	if after.Status.Primary != target || after.Status.FenceProof != v1alpha1.FenceAcknowledged {
		t.Errorf("the primary is %s by the proof %q, want %s by %s", after.Status.Primary, after.Status.FenceProof, target, v1alpha1.FenceAcknowledged)
	}
	says(t, must(t)(f.Tripodctl(t.Context(), "run", run)), "connections of the agent's own to "+address+" were refused")
	if verified, err := f.verifyEvidence(t.Context(), run); err != nil || !verified {
		t.Errorf("the evidence of %s: verified %t, %v", run, verified, err)
	}
	w.audit(t, source, target)
}

// saysWhy waits until whoever looks at the run is told.
func (f *Fleet) saysWhy(t *testing.T, run string, wants ...string) {
	t.Helper()
	f.comesTo(t, run, v1alpha1.RunFencing, wants...)
	says(t, must(t)(f.Tripodctl(t.Context(), "run", run)), wants...)
}
