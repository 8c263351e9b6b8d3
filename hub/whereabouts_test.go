package hub

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"tripod.dev/tripod/hub/gateway"
	"tripod.dev/tripod/hub/term"
)

// emptyStore holds nothing.
type emptyStore struct{}

func (emptyStore) Range(context.Context, string) ([]mvccpb.KeyValue, int64, error) {
	return nil, 1, nil
}
func (emptyStore) Decrypt(context.Context, mvccpb.KeyValue) ([]byte, error) { return nil, nil }

func (emptyStore) Revision() int64 { return 1 }

// TestAMemberThatIsCutOffDoesNotSayWhereAnApplicationIs: a write asks a majority
// every time, a read when the last answer is older than the bound.
func TestAMemberThatIsCutOffDoesNotSayWhereAnApplicationIs(t *testing.T) {
	now, asked := time.Hour, 0
	var cut error
	clock := func() time.Duration { return now }
	w := &whereabouts{committed: term.NewCommitted(emptyStore{}, term.DefaultPrefix, clock, nil), clock: clock, linearize: func(context.Context) error {
		asked++
		return cut
	}}
	ask := func(strict bool) error {
		_, err := w.Standing(t.Context(), "pay", "ledger", strict)
		return err
	}
	for range 3 {
		if err := ask(false); !errors.Is(err, gateway.ErrNoSuchApplication) {
			t.Fatal(err)
		}
	}
	if asked != 1 {
		t.Errorf("three reads at once asked %d times, want once", asked)
	}
	cut = errors.New("no leader")
	if err := ask(true); err == nil || !strings.Contains(err.Error(), "no leader") {
		t.Errorf("a write, cut off: %v", err)
	}
	now += placeAge - 1
	if err := ask(false); !errors.Is(err, gateway.ErrNoSuchApplication) {
		t.Errorf("a read within the bound: %v", err)
	}
	now++
	if err := ask(false); err == nil || !strings.Contains(err.Error(), "no leader") {
		t.Errorf("a read past the bound, cut off: %v", err)
	}
}
