package hub

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	failovercontroller "tripod.dev/tripod/failover/controller"
	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/hub/term"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// difference is one thing that a cluster has otherwise than the restored hub.
type difference struct {
	Cluster, Subject, Name, Hub, InCluster, Consequence string
	// Blocks the approval.
	Blocks bool
}

// adoption is a role that the clusters have gone on to since the backup.
type adoption struct {
	Dataset types.NamespacedName
	Epoch   int64
	Primary string
	SyncSet []string
}

type differences struct {
	list      []difference
	adoptions []adoption
	silent    []string
}

// difference compares what this hub holds with what the agents report to this
// member.
func (r *restored) difference(ctx context.Context) (differences, error) {
	var d differences
	if err := r.member.services.catalog.WaitSynced(ctx); err != nil {
		return d, fmt.Errorf("this member has just started and reads its own state: ask again: %w", err)
	}
	clusters, _, err := r.member.senses.committed.Clusters(ctx)
	if err != nil {
		return d, fmt.Errorf("read the clusters: %w", err)
	}
	for _, c := range clusters {
		applied := r.member.services.reports.Latest(c.Name)
		if applied == nil {
			d.silent = append(d.silent, c.Name)
			continue
		}
		d.list = append(d.list, objectDifferences(c.Name, r.member.services.renderer.State(c.Name), applied)...)
	}
	datasets, _, err := r.member.senses.committed.Datasets(ctx)
	if err != nil {
		return d, fmt.Errorf("read the datasets: %w", err)
	}
	found, adoptions := datasetDifferences(datasets, r.member.senses.observations.All())
	d.list, d.adoptions = append(d.list, found...), adoptions
	slices.SortFunc(d.list, func(a, b difference) int {
		return strings.Compare(a.Cluster+a.Subject+a.Name, b.Cluster+b.Subject+b.Name)
	})
	return d, nil
}

// objectDifferences compares what the hub would have applied with what the agent
// says that it keeps. Pure.
func objectDifferences(cluster string, wanted *agentv1.DesiredState, applied *agentv1.AppliedStatus) []difference {
	name := func(k *agentv1.ObjectKey) string {
		return strings.TrimPrefix(strings.Join([]string{k.GetKind(), k.GetNamespace(), k.GetName()}, "/"), "/")
	}
	kept := map[string]*agentv1.AppliedObject{}
	for _, o := range applied.GetObjects() {
		kept[name(o.GetKey())] = o
	}
	var out []difference
	for _, o := range wanted.GetObjects() {
		id := name(o.GetKey())
		has := kept[id]
		delete(kept, id)
		switch {
		case has == nil:
			out = append(out, difference{Cluster: cluster, Subject: "Object", Name: id, Hub: "placed here", InCluster: "not applied by this agent",
				Consequence: "it is applied; an object of that name is updated"})
		case has.GetRevision() != o.GetRevision():
			out = append(out, difference{Cluster: cluster, Subject: "Object", Name: id,
				Hub: fmt.Sprintf("revision %d", o.GetRevision()), InCluster: fmt.Sprintf("revision %d", has.GetRevision()),
				Consequence: "it is set back to what the backup says"})
		}
	}
	for _, b := range wanted.GetBurials() {
		if id := name(b.GetKey()); kept[id] != nil {
			delete(kept, id)
			out = append(out, difference{Cluster: cluster, Subject: "Object", Name: id, Hub: "deleted by tombstone " + b.GetTombstone(), InCluster: "applied",
				Consequence: "it is DELETED; if that is wrong, delete the tombstone first: kubectl delete tombstones.tripod.dev"})
		}
	}
	for id := range kept {
		out = append(out, difference{Cluster: cluster, Subject: "Object", Name: id, Hub: "unknown", InCluster: "applied",
			Consequence: "it stays, and is neither repaired nor deleted until it is placed again"})
	}
	return out
}

// datasetDifferences compares the epochs that the hub holds with those that the
// copies act on. Guards refuse an older epoch, so a hub that did not take over
// the newer one could neither keep the primary alive nor move it. A primary has
// stopped by the time a hub was restored, because nobody renewed its lease: what
// counts is the epoch that it held last. Pure.
func datasetDifferences(datasets []*v1alpha1.Dataset, observed map[term.CopyKey]term.Observation) ([]difference, []adoption) {
	var out []difference
	var adoptions []adoption
	for _, d := range datasets {
		key := types.NamespacedName{Namespace: d.Namespace, Name: d.Name}
		newest := adoption{Dataset: key, Epoch: d.Status.Epoch}
		for _, m := range d.Spec.Members {
			seen, ok := observed[term.CopyKey{Dataset: key, Cluster: m.Cluster}]
			if !ok {
				continue
			}
			if seen.GetEpoch() > newest.Epoch {
				newest = adoption{Dataset: key, Epoch: seen.GetEpoch()}
			}
			if seen.GetHeldEpoch() == newest.Epoch {
				newest.Primary = m.Cluster
				newest.SyncSet = append([]string{m.Cluster}, seen.GetHeldSyncSet()...)
			}
		}
		if newest.Epoch == d.Status.Epoch {
			continue
		}
		found := difference{
			Subject: "Dataset", Name: key.String(), Cluster: newest.Primary,
			Hub: fmt.Sprintf("epoch %d, primary %s", d.Status.Epoch, d.Status.Primary), InCluster: fmt.Sprintf("epoch %d, primary %s", newest.Epoch, newest.Primary),
			Consequence: "the hub takes over the clusters' epoch, primary and sync set",
		}
		if newest.Primary == "" {
			found.Cluster, found.Blocks = "-", true
			found.InCluster = fmt.Sprintf("epoch %d, nobody who held it reports", newest.Epoch)
			found.Consequence = "nothing is approved before the cluster of the primary reports: bring it back"
		} else {
			adoptions = append(adoptions, newest)
		}
		out = append(out, found)
	}
	return out, adoptions
}

// adopt commits what the clusters have gone on to.
func (r *restored) adopt(ctx context.Context, adoptions []adoption) error {
	if len(adoptions) == 0 {
		return nil
	}
	api, err := client.New(r.member.apiserver.Loopback(), client.Options{Scheme: failovercontroller.Scheme()})
	if err != nil {
		return fmt.Errorf("make a client of the hub's API: %w", err)
	}
	for _, a := range adoptions {
		var d v1alpha1.Dataset
		if err := api.Get(ctx, a.Dataset, &d); err != nil {
			return fmt.Errorf("take over the roles of dataset %s: %w", a.Dataset, err)
		}
		if d.Status.Epoch >= a.Epoch {
			continue
		}
		d.Status.Epoch, d.Status.Primary, d.Status.Phase = a.Epoch, a.Primary, v1alpha1.DatasetSteady
		d.Status.SyncSet, d.Status.SyncTarget = a.SyncSet, without(a.SyncSet, a.Primary)
		d.Status.PreviousPrimary, d.Status.Run, d.Status.FenceProof = "", "", ""
		d.Status.SyncGeneration++
		if err := api.Status().Update(ctx, &d); err != nil {
			return fmt.Errorf("take over the roles of dataset %s: %w", a.Dataset, err)
		}
		r.member.logger.Warn("roles were taken over from the clusters", "dataset", a.Dataset.String(), "epoch", a.Epoch, "primary", a.Primary)
	}
	return nil
}

func without(names []string, name string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == name })
}
