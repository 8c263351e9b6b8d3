package controller

import (
	"reflect"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/failover"
)

// accounts chooses which of the accounts that a turn wants are written in it. An account
// tells people how things are, and no decision waits for it: the status of an application
// or a plan, and what was seen of a dataset's copies. The loss of one cluster changes
// those of a thousand applications at once, in the very moment in which the hub has other
// things to do; and a hub that is late for writing them calls more clusters silent, which
// changes all of them again. So many are written in batches, with a rest after each that
// is as long as it took, and while there are decisions to write, which wait for the whole
// batch, a few a second. What is not chosen is wanted again in the next turn, as it is then.
//
// It belongs to the controller's loop.
type accounts struct {
	begun time.Duration // of the last batch, on the controller's clock
	rest  time.Duration // no batch before this
	// after is the last one that was chosen: the next batch goes on behind it, so that one
	// that changes all the time holds up no other.
	after   string
	writing bool
}

const (
	// fewAccounts are always written at once: those of a small fleet are never late.
	fewAccounts    = 8
	accountsAtOnce = 32
	// accountsEvery is the pace of batches beside decisions.
	accountsEvery = time.Second
)

// choose returns those that are written in the turn that wants e.
func (a *accounts) choose(e failover.Effects, now time.Duration) []client.Object {
	all, decisions := accountsOf(e)
	if len(all) <= fewAccounts {
		return all
	}
	if now < a.rest || decisions && a.rest > 0 && now-a.begun < accountsEvery {
		return nil
	}
	a.begun, a.writing = now, true
	slices.SortFunc(all, func(x, y client.Object) int { return strings.Compare(accountName(x), accountName(y)) })
	first, _ := slices.BinarySearchFunc(all, a.after, func(x client.Object, after string) int {
		if accountName(x) <= after {
			return -1
		}
		return 1
	})
	batch := slices.Concat(all[first:], all[:first])
	size := accountsAtOnce
	if decisions {
		size = fewAccounts
	}
	batch = batch[:min(size, len(batch))]
	a.after = accountName(batch[len(batch)-1])
	return batch
}

// written notes that the writes of a turn have ended.
func (a *accounts) written(now time.Duration) {
	if a.writing {
		a.writing = false
		a.rest = now + (now - a.begun)
	}
}

// accountsOf are the accounts among what a turn wants, and whether it wants more.
func accountsOf(e failover.Effects) (all []client.Object, decisions bool) {
	for _, d := range e.Datasets {
		if e.Reported[client.ObjectKeyFromObject(d)] {
			all = append(all, d)
		}
	}
	for _, app := range e.Applications {
		all = append(all, app)
	}
	for _, p := range e.Plans {
		all = append(all, p)
	}
	return all, len(e.Reported) < len(e.Datasets) || len(e.Create)+len(e.Runs)+len(e.Services) > 0
}

// accountName orders accounts by name first, so that a dataset and its application are
// often told of together.
func accountName(o client.Object) string {
	return o.GetNamespace() + "/" + o.GetName() + "/" + reflect.TypeOf(o).String()
}

// chosen are the objects of one kind among accounts.
func chosen[T client.Object](accounts []client.Object) []T {
	var out []T
	for _, o := range accounts {
		if t, ok := o.(T); ok {
			out = append(out, t)
		}
	}
	return out
}
