package main

import (
	"strings"
	"testing"
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

func TestPauseLimit(t *testing.T) {
	for limit, want := range map[time.Duration]int32{time.Second: 1, 10 * time.Second: 10, time.Hour: 3600, 0: 0, 1500 * time.Millisecond: 0, 2 * time.Hour: 0} {
		if got, err := pauseLimit(limit); got != want || (err == nil) != (want > 0) {
			t.Errorf("%v is %d, %v, want %d", limit, got, err, want)
		}
	}
}

func TestAnAbortThatComesTooLateSaysHowToGoBack(t *testing.T) {
	for name, tc := range map[string]struct {
		action v1alpha1.Action
		phase  v1alpha1.RunPhase
		want   string
	}{
		"a run that waits":                       {v1alpha1.ActionFailover, v1alpha1.RunAwaitingApproval, ""},
		"a run that has not begun":               {v1alpha1.ActionSwitchover, v1alpha1.RunPending, ""},
		"a switchover that closes":               {v1alpha1.ActionSwitchover, v1alpha1.RunClosing, ""},
		"a switchover that promotes":             {v1alpha1.ActionSwitchover, v1alpha1.RunPromoting, ""},
		"a switchover that returns":              {v1alpha1.ActionSwitchover, v1alpha1.RunReturning, ""},
		"a switchover whose target is open":      {v1alpha1.ActionSwitchover, v1alpha1.RunVerifying, "tripodctl switchover pay/ledger --to north-1"},
		"a run that is completed":                {v1alpha1.ActionSwitchover, v1alpha1.RunCompleted, "tripodctl switchover pay/ledger --to north-1"},
		"a run that is aborted":                  {v1alpha1.ActionSwitchover, v1alpha1.RunAborted, "aborted already"},
		"a failover whose source may be lost":    {v1alpha1.ActionFailover, v1alpha1.RunFencing, "cannot be undone"},
		"a failover that waits for its old side": {v1alpha1.ActionFailover, v1alpha1.RunPaused, "cannot be undone"},
	} {
		t.Run(name, func(t *testing.T) {
			run := &v1alpha1.RecoveryRun{}
			run.Name, run.Spec.Action, run.Status.Phase = "run-1", tc.action, tc.phase
			run.Spec.Application = v1alpha1.ApplicationReference{Namespace: "pay", Name: "ledger"}
			run.Spec.From.Cluster = "north-1"
			err := checkAbort(run)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}
