package v1alpha1

import "testing"

func TestDiscardSubjectsAreReadBack(t *testing.T) {
	for _, want := range []Discard{
		{Namespace: "pay", Dataset: "ledger-db", Cluster: "north-1", Epoch: 7},
		{Namespace: "pay", Dataset: "ledger.db.v2", Cluster: "north-1", Epoch: 12},
	} {
		if got, ok := ParseDiscard(want.Subject()); !ok || got != want {
			t.Errorf("%s: read as %+v (%t), wants %+v", want.Subject(), got, ok, want)
		}
	}
	for _, run := range []string{"pay.ledger.2", "discard.pay.ledger.2", "discard.pay.ledger-db.north-1.x", "city-north"} {
		if got, ok := ParseDiscard(run); ok {
			t.Errorf("%s is read as %+v, and is no copy", run, got)
		}
	}
}
