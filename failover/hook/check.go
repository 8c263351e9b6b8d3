package hook

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/hub/api/condition"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// checkTime bounds the look at one hook.
const checkTime = 10 * time.Second

// Check says why a hook could not run now, as far as that can be tried without
// running it: nil says that nothing is known to be wrong. A condition is compiled, a
// Secret of headers read, a bundle of authorities parsed, and a Job is made on trial
// (dry run) at each place, with the rights of that cluster's agent. A cluster that is
// not reached says nothing about a hook: that it is not is another check's to tell.
func (r *Runner) Check(ctx context.Context, plan string, h v1alpha1.PlanHook, places []failover.JobPlace) error {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	switch {
	case h.Wait != nil:
		_, err := condition.Compile(h.Wait.Condition)
		return err
	case h.HTTP != nil:
		return r.checkCall(ctx, h.HTTP.HeaderSecret, h.HTTP.CABundle)
	case h.Message != nil:
		return r.checkCall(ctx, h.Message.HeaderSecret, h.Message.CABundle)
	case h.GRPC != nil:
		return r.checkCall(ctx, "", h.GRPC.CABundle)
	case h.Job != nil:
		return r.checkJob(ctx, plan, h, places)
	}
	return fmt.Errorf("hook %s has no kind that this hub knows", h.Name)
}

func (r *Runner) checkCall(ctx context.Context, secret, ca string) error {
	if _, err := trust(ca); err != nil {
		return err
	}
	if secret == "" {
		return nil
	}
	if r.cfg.Headers == nil {
		return fmt.Errorf("it names Secret %s, and this hub shows hooks none", secret)
	}
	if _, err := r.cfg.Headers(ctx, secret); apierrors.IsNotFound(err) {
		return fmt.Errorf("its Secret of headers is not there: %w", err)
	}
	return nil
}

func (r *Runner) checkJob(ctx context.Context, plan string, h v1alpha1.PlanHook, places []failover.JobPlace) error {
	if r.cfg.Cluster == nil {
		return errors.New("it is a Job, and this hub makes none")
	}
	for _, p := range places {
		if err := r.tryJob(ctx, plan, h, p); err != nil {
			return err
		}
	}
	return nil
}

func (r *Runner) tryJob(ctx context.Context, plan string, h v1alpha1.PlanHook, p failover.JobPlace) error {
	if v1alpha1.ReservedNamespace(p.Namespace) {
		return fmt.Errorf("no Job runs in namespace %s, which belongs to Kubernetes or to Tripod", p.Namespace)
	}
	client, done, err := r.cfg.Cluster(p.Cluster)
	if err != nil {
		return nil
	}
	defer done()
	run := &v1alpha1.RecoveryRun{ObjectMeta: metav1.ObjectMeta{Name: "preflight"}, Spec: v1alpha1.RecoveryRunSpec{Plan: plan}}
	job := jobOf(failover.HookCall{ID: "preflight/" + plan + "/" + h.Name, Hook: h, Run: run,
		Application: v1alpha1.ApplicationReference{Namespace: p.Namespace}, Attempt: 1, Bound: time.Minute})
	_, err = client.BatchV1().Jobs(p.Namespace).Create(ctx, job, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if apierrors.IsForbidden(err) || apierrors.IsNotFound(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) {
		return fmt.Errorf("its Job could not be made in namespace %s of cluster %s: %w", p.Namespace, p.Cluster, err)
	}
	return nil
}
