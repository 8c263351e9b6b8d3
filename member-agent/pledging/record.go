package pledging

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// PromisesConfigMap holds the epochs that this cluster has acknowledged. Whoever
// deletes it lets the cluster pledge for a role that was taken away.
const PromisesConfigMap = "tripod-agent-pledges"

const (
	entryEpochs = "epochs"
	entryTTL    = "ttlMillis"
)

// ClusterRecord is a Record in a ConfigMap of the agent's own cluster: what the
// API server has acknowledged is durable, and every replica reads the newest.
type ClusterRecord struct {
	Client    kubernetes.Interface
	Namespace string
}

// Promises implements Record.
func (r ClusterRecord) Promises(ctx context.Context) (Promises, error) {
	stored, err := r.Client.CoreV1().ConfigMaps(r.Namespace).Get(ctx, PromisesConfigMap, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return Promises{Epochs: map[string]int64{}}, nil
	}
	if err != nil {
		return Promises{}, fmt.Errorf("read what this cluster has promised: %w", err)
	}
	return parsePromises(stored)
}

// parsePromises refuses to guess: an agent that forgot would break its word.
func parsePromises(stored *corev1.ConfigMap) (Promises, error) {
	p := Promises{Epochs: map[string]int64{}}
	if text := stored.Data[entryEpochs]; text != "" {
		if err := json.Unmarshal([]byte(text), &p.Epochs); err != nil {
			return Promises{}, fmt.Errorf("config map %s/%s: %s is not a JSON object of numbers: restore it: %w", stored.Namespace, stored.Name, entryEpochs, err)
		}
	}
	if text := stored.Data[entryTTL]; text != "" {
		millis, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return Promises{}, fmt.Errorf("config map %s/%s: %s is %q, wants a number: restore it", stored.Namespace, stored.Name, entryTTL, text)
		}
		p.TTL = time.Duration(millis) * time.Millisecond
	}
	return p, nil
}

// Keep implements Record.
func (r ClusterRecord) Keep(ctx context.Context, p Promises) (Promises, error) {
	maps := r.Client.CoreV1().ConfigMaps(r.Namespace)
	for {
		stored, err := maps.Get(ctx, PromisesConfigMap, metav1.GetOptions{})
		missing := apierrors.IsNotFound(err)
		if missing {
			stored, err = &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: r.Namespace, Name: PromisesConfigMap}}, nil
		}
		if err != nil {
			return Promises{}, fmt.Errorf("read what this cluster has promised: %w", err)
		}
		was, err := parsePromises(stored)
		if err != nil {
			return Promises{}, err
		}
		all, more := was.with(p)
		if !more {
			return all, nil
		}
		text, err := json.Marshal(all.Epochs)
		if err != nil {
			return Promises{}, err
		}
		stored.Data = map[string]string{entryEpochs: string(text), entryTTL: strconv.FormatInt(all.TTL.Milliseconds(), 10)}
		if missing {
			_, err = maps.Create(ctx, stored, metav1.CreateOptions{})
		} else {
			_, err = maps.Update(ctx, stored, metav1.UpdateOptions{})
		}
		switch {
		case err == nil:
			return all, nil
		case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err): // the other replica was first
		default:
			return Promises{}, fmt.Errorf("store what this cluster promises: %w", err)
		}
	}
}

// with joins both; more is true when q adds anything to p.
func (p Promises) with(q Promises) (all Promises, more bool) {
	all = Promises{Epochs: maps.Clone(p.Epochs), TTL: max(p.TTL, q.TTL)}
	if all.Epochs == nil {
		all.Epochs = map[string]int64{}
	}
	more = q.TTL > p.TTL
	for dataset, epoch := range q.Epochs {
		if epoch > all.Epochs[dataset] {
			all.Epochs[dataset], more = epoch, true
		}
	}
	return all, more
}
