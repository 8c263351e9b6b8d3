package hook

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

const (
	// keptFor is how long the cluster keeps a Job that has ended: a leader that takes
	// over reads its end there, and does not have the work done twice.
	keptFor = 10 * time.Minute
	// partingTime bounds what is done for a Job that took too long.
	partingTime = 5 * time.Second
	// tail of a log that is kept in the evidence.
	tailLines, tailBytes = 20, 2048

	hookLabel      = "tripod.dev/hook"
	attemptComment = "tripod.dev/attempt"
)

// job makes the attempt's Job, or finds it, and returns when it has ended, with the
// end of its log. One that takes too long is removed with its pods.
func (r *Runner) job(ctx context.Context, c failover.HookCall) (string, error) {
	cluster, err := placeOf(c)
	if err != nil {
		return "", err
	}
	job := jobOf(c)
	if v1alpha1.ReservedNamespace(job.Namespace) {
		return "", fmt.Errorf("no Job runs in namespace %s of cluster %s, which belongs to Kubernetes or to Tripod: name another one", job.Namespace, cluster)
	}
	if r.cfg.Cluster == nil {
		return "", errors.New("a Job is asked for, and this hub makes none")
	}
	client, done, err := r.cfg.Cluster(cluster)
	if err != nil {
		return "", fmt.Errorf("reach cluster %s: %w", cluster, err)
	}
	defer done()
	where := fmt.Sprintf("Job %s/%s in cluster %s", job.Namespace, job.Name, cluster)
	ended, err := r.complete(ctx, client, job)
	parting, cancel := context.WithTimeout(context.WithoutCancel(ctx), partingTime)
	defer cancel()
	log := logOf(parting, client, job)
	switch {
	case err != nil && ctx.Err() != nil:
		return "", errors.Join(fmt.Errorf("%s has not ended: %w%s", where, err, log), remove(parting, client, job))
	case err != nil:
		return "", fmt.Errorf("%s: %w", where, err)
	case ended.Type == batchv1.JobFailed:
		return "", fmt.Errorf("%s failed: %s %s%s", where, ended.Reason, ended.Message, log)
	}
	return where + " is complete" + log, nil
}

// complete makes the Job unless it is there, and waits for its end. What cannot be
// asked is asked again while there is time.
func (r *Runner) complete(ctx context.Context, client kubernetes.Interface, job *batchv1.Job) (batchv1.JobCondition, error) {
	jobs := client.BatchV1().Jobs(job.Namespace)
	ticker := time.NewTicker(r.cfg.Pace)
	defer ticker.Stop()
	for {
		found, err := jobs.Get(ctx, job.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			found, err = jobs.Create(ctx, job, metav1.CreateOptions{})
		}
		switch {
		case err == nil && found.Annotations[attemptComment] != job.Annotations[attemptComment]:
			return batchv1.JobCondition{}, errors.New("another Job has its name: it is left alone")
		case err == nil:
			for _, end := range found.Status.Conditions {
				if end.Status == corev1.ConditionTrue && (end.Type == batchv1.JobComplete || end.Type == batchv1.JobFailed) {
					return end, nil
				}
			}
		case apierrors.IsInvalid(err), apierrors.IsForbidden(err), apierrors.IsBadRequest(err):
			return batchv1.JobCondition{}, fmt.Errorf("make it: %w", err)
		}
		select {
		case <-ctx.Done():
			return batchv1.JobCondition{}, errors.Join(ctx.Err(), err)
		case <-ticker.C:
		}
	}
}

func remove(ctx context.Context, client kubernetes.Interface, job *batchv1.Job) error {
	policy := metav1.DeletePropagationBackground
	err := client.BatchV1().Jobs(job.Namespace).Delete(ctx, job.Name, metav1.DeleteOptions{PropagationPolicy: &policy})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("remove it: %w; it ends by itself, at its deadline", err)
	}
	return nil
}

// logOf is the end of the log of the Job's pod, for people, or why there is none.
func logOf(ctx context.Context, client kubernetes.Interface, job *batchv1.Job) string {
	pods, err := client.CoreV1().Pods(job.Namespace).List(ctx, metav1.ListOptions{LabelSelector: hookLabel + "=" + job.Labels[hookLabel]})
	if err != nil {
		return fmt.Sprintf("; its log cannot be read: %v", err)
	}
	if len(pods.Items) == 0 {
		return "; it has no pod"
	}
	lines := int64(tailLines)
	text, err := client.CoreV1().Pods(job.Namespace).GetLogs(pods.Items[0].Name, &corev1.PodLogOptions{TailLines: &lines}).DoRaw(ctx)
	if err != nil {
		return fmt.Sprintf("; its log cannot be read: %v", err)
	}
	tail := strings.ToValidUTF8(string(text[max(0, len(text)-tailBytes):]), "")
	return "; the end of its log: " + strings.TrimSpace(tail)
}

// placeOf is the cluster where the Job of a call runs.
func placeOf(c failover.HookCall) (string, error) {
	h, spec, datasets := c.Hook.Job, c.Run.Spec, c.Run.Status.Datasets
	active, target := spec.From.Cluster, spec.To.Cluster
	if len(datasets) > 0 {
		active, target = datasets[0].PreviousPrimary, datasets[0].Target
	}
	cluster := map[v1alpha1.HookPlace]string{v1alpha1.HookActive: active, v1alpha1.HookTarget: target, v1alpha1.HookNamed: h.Cluster}[h.In]
	if cluster == "" {
		return "", fmt.Errorf("the cluster %s is not known at %s: name one, or have the hook run later", h.In, c.Hook.At)
	}
	return cluster, nil
}

// jobOf is the Job of one attempt. Its name is made of the attempt's key, so that the
// same attempt is the same Job, whoever asks for it.
func jobOf(c failover.HookCall) *batchv1.Job {
	h := c.Hook.Job
	sum := sha256.Sum256([]byte(c.ID + "/" + string(c.Hook.At)))
	id := hex.EncodeToString(sum[:10])
	namespace := h.Namespace
	if namespace == "" {
		namespace = c.Application.Namespace
	}
	once, deadline, kept := int32(0), max(1, int64(c.Bound/time.Second)), int32(keptFor/time.Second)
	job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "tripod-hook-" + id,
		Labels: map[string]string{hookLabel: id}, Annotations: map[string]string{attemptComment: c.ID}}}
	job.Spec = batchv1.JobSpec{BackoffLimit: &once, ActiveDeadlineSeconds: &deadline, TTLSecondsAfterFinished: &kept}
	job.Spec.Template.Labels = map[string]string{hookLabel: id}
	job.Spec.Template.Spec = corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, ServiceAccountName: h.ServiceAccountName,
		Containers: []corev1.Container{{Name: "hook", Image: h.Image, Command: h.Command, Args: h.Args, Env: environment(c)}}}
	return job
}

func environment(c failover.HookCall) []corev1.EnvVar {
	values := map[string]string{"TRIPOD_IDEMPOTENCY_KEY": c.ID, "TRIPOD_RUN": c.Run.Name, "TRIPOD_HOOK": c.Hook.Name, "TRIPOD_AT": string(c.Hook.At),
		"TRIPOD_ACTION": string(c.Run.Spec.Action), "TRIPOD_PLAN": c.Run.Spec.Plan, "TRIPOD_NAMESPACE": c.Application.Namespace, "TRIPOD_APPLICATION": c.Application.Name}
	for name, value := range c.Hook.Job.Env {
		values[name] = value
	}
	out := make([]corev1.EnvVar, 0, len(values))
	for name, value := range values {
		out = append(out, corev1.EnvVar{Name: name, Value: value})
	}
	slices.SortFunc(out, func(a, b corev1.EnvVar) int { return strings.Compare(a.Name, b.Name) })
	return out
}
