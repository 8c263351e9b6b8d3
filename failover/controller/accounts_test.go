package controller

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// accountsFor are what a turn wants of n applications with a dataset each, of which
// decided have to be decided on.
func accountsFor(n, decided int) failover.Effects {
	e := failover.Effects{Reported: map[types.NamespacedName]bool{}}
	for i := range n {
		meta := metav1.ObjectMeta{Namespace: "pay", Name: fmt.Sprintf("app%04d", i)}
		e.Applications = append(e.Applications, &v1alpha1.Application{ObjectMeta: meta})
		d := &v1alpha1.Dataset{ObjectMeta: meta}
		e.Datasets = append(e.Datasets, d)
		if i >= decided {
			e.Reported[client.ObjectKeyFromObject(d)] = true
		}
	}
	return e
}

// At every turn all accounts have changed again: each is written in its turn, none of
// them more often than another, and no decision is among them.
func TestEveryAccountIsWrittenInItsTurn(t *testing.T) {
	const n, decided = 500, 7
	e := accountsFor(n, decided)
	var a accounts
	written := map[client.Object]int{}
	now := time.Minute
	for range (2*n - decided + fewAccounts - 1) / fewAccounts {
		for _, o := range a.choose(e, now) {
			written[o]++
		}
		a.written(now + 30*time.Millisecond)
		now += 2 * accountsEvery
	}
	for i, d := range e.Datasets {
		want := 1
		if i < decided {
			want = 0
		}
		if written[d] < want || written[d] > 2*want {
			t.Errorf("dataset %s, decided %t, was written %d times as an account", d.Name, i < decided, written[d])
		}
		if n := written[e.Applications[i]]; n < 1 || n > 2 {
			t.Errorf("application %s was written %d times", d.Name, n)
		}
	}
}

func TestAccountsRest(t *testing.T) {
	const took = 300 * time.Millisecond
	for name, tc := range map[string]struct {
		n, decided int
		after      time.Duration // the end of the first batch
		want       int
	}{
		"a few are never late":                             {4, 0, 0, 8},
		"nor beside decisions":                             {4, 2, 0, 6},
		"many rest for as long as they took":               {100, 0, took - 1, 0},
		"and go on":                                        {100, 0, took, accountsAtOnce},
		"beside decisions they wait for longer":            {100, 1, took, 0},
		"but not for ever":                                 {100, 1, accountsEvery - took, fewAccounts},
		"and decisions are none of them, however many":     {100, 100, accountsEvery, fewAccounts},
		"what many wanted before, and few now, is at once": {3, 0, 0, 6},
	} {
		t.Run(name, func(t *testing.T) {
			var a accounts
			first := a.choose(accountsFor(100, 0), time.Minute)
			if len(first) != accountsAtOnce {
				t.Fatalf("the first batch has %d", len(first))
			}
			a.written(time.Minute + took)
			if got := a.choose(accountsFor(tc.n, tc.decided), time.Minute+took+tc.after); len(got) != tc.want {
				t.Errorf("%d are written, want %d", len(got), tc.want)
			}
		})
	}
}
