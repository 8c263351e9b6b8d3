package scenario

import (
	"context"
	"strings"
	"testing"
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// A person moves a healthy application: its primary says that it has stopped, the
// other one goes on, nothing that was acknowledged is lost, and the old one
// becomes a replica.
func TestOrderedFailover(t *testing.T) {
	f := fleet(t)
	before, err := f.Dataset(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := business(t, f)
	if err := b.AwaitTransfers(t.Context(), 50, time.Minute); err != nil {
		t.Fatal(err)
	}
	to := "north-1"
	if before.Status.Primary == to {
		to = "north-2"
	}
	if err := f.AwaitProtected(t.Context(), 2*time.Minute, before.Status.Primary, to); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Tripodctl(t.Context(), "failover", application, "--to", before.Status.Primary); err == nil || !strings.Contains(err.Error(), "active in "+before.Status.Primary+" already") {
		t.Errorf("a failover to where it is: %v", err)
	}
	said := must(t)(f.Tripodctl(t.Context(), "failover", application, "--to", to))
	says(t, said, "Completed", string(v1alpha1.FenceAcknowledged), "from "+before.Status.Primary+" to "+to)
	t.Log(said)
	err = f.await(t.Context(), time.Minute, "the primary is "+to, func(ctx context.Context) (string, error) {
		now, err := f.Dataset(ctx)
		if err != nil {
			return "", err
		}
		if now.Status.Primary != to {
			return "it is " + now.Status.Primary, nil
		}
		return "", nil
	})
	if err != nil {
		t.Error(err)
	}
	if err := b.AwaitTransfers(t.Context(), 100, time.Minute); err != nil {
		t.Error(err)
	}
	if err := f.AwaitProtected(t.Context(), 2*time.Minute, before.Status.Primary, to); err != nil {
		t.Error(err)
	}
	audit(t, b)
}
