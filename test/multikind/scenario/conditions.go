package scenario

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// AwaitClusters waits until every center's cluster is ready and leased.
func (f *Fleet) AwaitClusters(ctx context.Context) error {
	return f.await(ctx, 4*time.Minute, "every cluster is Ready and Leased", func(ctx context.Context) (string, error) {
		api, err := f.API()
		if err != nil {
			return "", err
		}
		var list v1alpha1.ClusterList
		if err := api.List(ctx, &list); err != nil {
			return "", err
		}
		var missing []string
		for _, c := range f.Lab.Centers() {
			i := slices.IndexFunc(list.Items, func(cl v1alpha1.Cluster) bool { return cl.Name == c.Name })
			if i < 0 {
				missing = append(missing, c.Name+" has not joined")
				continue
			}
			missing = append(missing, untrue(c.Name, list.Items[i].Status.Conditions, v1alpha1.ConditionReady, v1alpha1.ConditionLeased)...)
		}
		return strings.Join(missing, "; "), nil
	})
}

// AwaitApplication waits until the ledger is available and protected: its
// replicas are what the policy asks for.
func (f *Fleet) AwaitApplication(ctx context.Context, limit time.Duration) error {
	return f.await(ctx, limit, "the application pay/ledger is Available, Protected and Ready", func(ctx context.Context) (string, error) {
		api, err := f.API()
		if err != nil {
			return "", err
		}
		var app v1alpha1.Application
		if err := api.Get(ctx, client.ObjectKey{Namespace: "pay", Name: "ledger"}, &app); err != nil {
			return "", err
		}
		return strings.Join(untrue("pay/ledger", app.Status.Conditions,
			v1alpha1.ConditionAvailable, v1alpha1.ConditionProtected, v1alpha1.ConditionReady), "; "), nil
	})
}

// AwaitPlacements waits until everything placed in the namespace is healthy.
func (f *Fleet) AwaitPlacements(ctx context.Context, limit time.Duration) error {
	return f.await(ctx, limit, "every placement in pay is Scheduled, Applied and Healthy", func(ctx context.Context) (string, error) {
		api, err := f.API()
		if err != nil {
			return "", err
		}
		var list v1alpha1.PlacementList
		if err := api.List(ctx, &list, client.InNamespace("pay")); err != nil {
			return "", err
		}
		if len(list.Items) == 0 {
			return "there is no placement", nil
		}
		var missing []string
		for _, p := range list.Items {
			missing = append(missing, untrue(p.Name, p.Status.Conditions,
				v1alpha1.ConditionScheduled, v1alpha1.ConditionApplied, v1alpha1.ConditionHealthy)...)
		}
		return strings.Join(missing, "; "), nil
	})
}

// Dataset reads the ledger's dataset.
func (f *Fleet) Dataset(ctx context.Context, avoid ...string) (*v1alpha1.Dataset, error) {
	api, err := f.API(avoid...)
	if err != nil {
		return nil, err
	}
	var d v1alpha1.Dataset
	if err := api.Get(ctx, client.ObjectKey{Namespace: "pay", Name: "ledger-db"}, &d); err != nil {
		return nil, fmt.Errorf("get the dataset pay/ledger-db: %w", err)
	}
	return &d, nil
}

// AwaitProtected waits until the committed sync set holds the centers and none of
// them is held after a change: the next loss would be survived without a person.
func (f *Fleet) AwaitProtected(ctx context.Context, limit time.Duration, centers ...string) error {
	return f.await(ctx, limit, fmt.Sprintf("the sync set is %v, none of it held", centers), func(ctx context.Context) (string, error) {
		d, err := f.Dataset(ctx)
		if err != nil {
			return "", err
		}
		for _, c := range centers {
			if !slices.Contains(d.Status.SyncSet, c) {
				return fmt.Sprintf("it is %v (%s)", d.Status.SyncSet, states(d)), nil
			}
		}
		for _, m := range d.Status.Members {
			if m.HeldSince != nil && slices.Contains(centers, m.Cluster) {
				return m.Cluster + " is held after a change until it has been stable for a while", nil
			}
		}
		return "", nil
	})
}

func states(d *v1alpha1.Dataset) string {
	var s []string
	for _, m := range d.Status.Members {
		s = append(s, fmt.Sprintf("%s %s %s %s", m.Cluster, m.Role, m.State, m.Message))
	}
	return strings.Join(s, ", ")
}

// untrue lists the conditions of kinds that are not True.
func untrue(object string, conditions []metav1.Condition, kinds ...string) []string {
	var missing []string
	for _, kind := range kinds {
		c := meta.FindStatusCondition(conditions, kind)
		switch {
		case c == nil:
			missing = append(missing, fmt.Sprintf("%s has no condition %s", object, kind))
		case c.Status != metav1.ConditionTrue:
			missing = append(missing, fmt.Sprintf("%s is not %s: %s: %s", object, kind, c.Reason, c.Message))
		}
	}
	return missing
}
