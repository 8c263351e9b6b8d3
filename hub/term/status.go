package term

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tripod.dev/tripod/hub/api/v1alpha1"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// FactsSource gives what a cluster last reported of itself to this member, nil
// if nothing.
type FactsSource interface {
	Facts(cluster string) *agentv1.ClusterFacts
}

// StatusWriter writes a cluster's status through the API server; it fails when
// the object is not the one that was read (its resource version).
type StatusWriter interface {
	UpdateStatus(ctx context.Context, cluster *v1alpha1.Cluster) error
}

// Fleet lists the committed clusters.
type Fleet interface {
	Clusters(ctx context.Context) ([]*v1alpha1.Cluster, int64, error)
}

// ClusterStatusConfig describes the writer of cluster status.
type ClusterStatusConfig struct {
	Fleet    Fleet
	Leases   *Leases
	Vantages *Vantages
	Facts    FactsSource
	Writer   StatusWriter
	// Members are the hub's now; a vantage of one that left is forgotten. Nil takes
	// those that ever heard the cluster.
	Members func() []string
	// Every is how often the clusters are looked at; Pause the least time
	// between two writes of one cluster; Refresh how old the times for people
	// may become when nothing else changes. Connected is how old a heartbeat may
	// be at a vantage that still counts as connected.
	Every, Pause, Refresh, Connected time.Duration
	Now                              func() time.Time
	Logger                           *slog.Logger
}

// ClusterStatus keeps Cluster.status on the leader. It writes on change, and
// seldom otherwise: liveness itself is in the leases, not here.
type ClusterStatus struct {
	config ClusterStatusConfig
	// Only Run's goroutine uses these.
	started time.Time
	written map[string]time.Time // by cluster
}

// NewClusterStatus fills the defaults for a fleet with this tick.
func NewClusterStatus(config ClusterStatusConfig, tick time.Duration) *ClusterStatus {
	def := func(d *time.Duration, value time.Duration) {
		if *d == 0 {
			*d = value
		}
	}
	def(&config.Every, tick)
	def(&config.Pause, 2*tick)
	def(&config.Refresh, time.Minute)
	def(&config.Connected, 3*tick)
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	return &ClusterStatus{config: config}
}

// Run works until ctx ends.
func (c *ClusterStatus) Run(ctx context.Context, term uint64) error {
	c.started, c.written = c.config.Now(), map[string]time.Time{}
	ticker := time.NewTicker(c.config.Every)
	defer ticker.Stop()
	for {
		if err := c.round(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

func (c *ClusterStatus) round(ctx context.Context) error {
	clusters, _, err := c.config.Fleet.Clusters(ctx)
	if err != nil {
		return fmt.Errorf("read the clusters: %w", err)
	}
	for _, cluster := range clusters {
		now := c.config.Now()
		if now.Sub(c.written[cluster.Name]) < c.config.Pause {
			continue
		}
		next := cluster.DeepCopy()
		c.fill(next, now)
		if c.listening(cluster, next, now) || !c.worthWriting(cluster, next) {
			continue
		}
		c.written[cluster.Name] = now
		err := c.config.Writer.UpdateStatus(ctx, next)
		if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) && ctx.Err() == nil {
			c.config.Logger.Warn("status of a cluster was not written", "cluster", cluster.Name, "error", err)
		}
	}
	return nil
}

// listening is true while a new leader has not had the time to hear all that the
// last one heard: silence says nothing yet.
func (c *ClusterStatus) listening(old, next *v1alpha1.Cluster, now time.Time) bool {
	return now.Sub(c.started) <= c.config.Connected &&
		len(connected(next.Status.Vantages)) < len(connected(old.Status.Vantages))
}

// worthWriting is true when anything but the times for people has changed, or
// when those are old.
func (c *ClusterStatus) worthWriting(old, next *v1alpha1.Cluster) bool {
	a, b := withoutTimes(old.Status), withoutTimes(next.Status)
	if !equality.Semantic.DeepEqual(a, b) {
		return true
	}
	for _, n := range next.Status.Vantages {
		i := slices.IndexFunc(old.Status.Vantages, func(o v1alpha1.Vantage) bool { return o.Member == n.Member })
		if i >= 0 && n.LastHeard.Sub(old.Status.Vantages[i].LastHeard.Time) > c.config.Refresh {
			return true
		}
	}
	return false
}

func withoutTimes(s v1alpha1.ClusterStatus) v1alpha1.ClusterStatus {
	s = *s.DeepCopy()
	for i := range s.Vantages {
		s.Vantages[i].LastHeard = metav1.MicroTime{}
	}
	for i := range s.Conditions {
		s.Conditions[i].LastTransitionTime = metav1.Time{}
	}
	return s
}

func (c *ClusterStatus) fill(cluster *v1alpha1.Cluster, now time.Time) {
	name, status := cluster.Name, &cluster.Status
	status.ObservedGeneration = cluster.Generation
	c.fillVantages(name, status, now)
	if facts := c.config.Facts.Facts(name); facts != nil {
		status.Kubernetes = kubernetesStatus(facts)
	}
	over := c.config.Leases.SurelyOver(name)
	_, _, renewed := c.config.Leases.Last(name)
	heard := c.config.Vantages.Stable(name) > 0 || len(connected(status.Vantages)) > 0
	for _, condition := range []metav1.Condition{
		leased(cluster, over, renewed), c.reached(name, status.Vantages), observable(name, heard, c.config.Vantages.Unobservable(name)),
		ready(name, over, heard, c.config.Vantages.Unobservable(name), status.Kubernetes),
	} {
		if !heard && !cluster.HasJoined() && admission(cluster) == nil {
			condition.Status, condition.Reason = metav1.ConditionUnknown, "NotJoined"
			condition.Message = fmt.Sprintf("the cluster has not joined yet: apply to it what `tripodctl agent-manifest %s` prints", name)
		}
		condition.ObservedGeneration = cluster.Generation
		meta.SetStatusCondition(&status.Conditions, condition)
	}
}

// fillVantages keeps what members of earlier terms said as not connected.
func (c *ClusterStatus) fillVantages(name string, status *v1alpha1.ClusterStatus, now time.Time) {
	byMember := map[string]v1alpha1.Vantage{}
	for _, v := range status.Vantages {
		v.Connected = false
		byMember[v.Member] = v
	}
	heardBy := c.config.Vantages.HeardBy(name)
	for _, m := range c.config.Vantages.Members() {
		age, heard := heardBy[m.Member]
		v, known := byMember[m.Member]
		if !heard && !known {
			continue // a member that has never heard the cluster is no witness of it
		}
		v.Member, v.Center = m.Member, m.Center
		if heard {
			v.LastHeard = metav1.NewMicroTime(now.Add(-age))
			v.Connected = age <= c.config.Connected
		}
		byMember[m.Member] = v
	}
	if members := c.members(); members != nil { // who left is no vantage
		maps.DeleteFunc(byMember, func(member string, _ v1alpha1.Vantage) bool { return !slices.Contains(members, member) })
	}
	status.Vantages = nil
	for _, member := range slices.Sorted(maps.Keys(byMember)) {
		status.Vantages = append(status.Vantages, byMember[member])
	}
}

func connected(all []v1alpha1.Vantage) (members []string) {
	for _, v := range all {
		if v.Connected {
			members = append(members, v.Member)
		}
	}
	return members
}

// members of the hub; nil when that is not known.
func (c *ClusterStatus) members() []string {
	if c.config.Members == nil {
		return nil
	}
	return c.config.Members()
}

// reached says whether all members of the hub hear the cluster. While only some do,
// whatever goes through the others fails, and the loss of one more may silence it.
func (c *ClusterStatus) reached(name string, vantages []v1alpha1.Vantage) metav1.Condition {
	condition := metav1.Condition{Type: v1alpha1.ConditionConnected, Status: metav1.ConditionTrue, Reason: "AllMembers"}
	hearing, members := connected(vantages), c.members()
	if members == nil {
		for _, v := range vantages {
			members = append(members, v.Member)
		}
	}
	var deaf []string
	for _, member := range slices.Sorted(slices.Values(members)) {
		if !slices.Contains(hearing, member) {
			deaf = append(deaf, member)
		}
	}
	switch {
	case len(hearing) == 0:
		condition.Status, condition.Reason = metav1.ConditionFalse, "Silent"
		condition.Message = fmt.Sprintf("no member of the hub hears an agent of cluster %s", name)
	case len(deaf) > 0:
		condition.Status, condition.Reason = metav1.ConditionFalse, "Partial"
		condition.Message = fmt.Sprintf("%d of %d hub members hear cluster %s, not %s: see `tripodctl hub members`, and whether the cluster reaches port 6444 there",
			len(hearing), len(members), name, strings.Join(deaf, ", "))
	default:
		condition.Message = fmt.Sprintf("all %d hub members hear cluster %s", len(members), name)
	}
	return condition
}

func leased(cluster *v1alpha1.Cluster, over, renewed bool) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.ConditionLeased, Status: metav1.ConditionTrue, Reason: "Renewed", Message: "the lease is renewed each tick"}
	switch {
	case !over && !renewed:
		c.Status, c.Reason = metav1.ConditionUnknown, "LeaderStarted"
		c.Message = "this leader has not renewed the lease yet; one from before it started may still be held"
	case over && admission(cluster) != nil:
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, "NotAccepted", admission(cluster).Error()
	case over:
		c.Status, c.Reason = metav1.ConditionFalse, "Expired"
		c.Message = "no agent holds a lease: no member of the hub hears one; look at the Deployment tripod-agent in namespace tripod-system of the cluster"
	}
	return c
}

func observable(name string, heard bool, reason string) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.ConditionObservable, Status: metav1.ConditionTrue, Reason: "Observed", Message: "the agent can observe what it reports"}
	switch {
	case !heard:
		c.Status, c.Reason, c.Message = metav1.ConditionUnknown, "Silent", fmt.Sprintf("no member of the hub hears an agent of cluster %s", name)
	case reason != "":
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, "AgentCannotObserve", reason
	}
	return c
}

func ready(name string, over, heard bool, unobservable string, k *v1alpha1.KubernetesStatus) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionUnknown}
	switch {
	case over || !heard:
		c.Reason, c.Message = "Silent", fmt.Sprintf("no member of the hub hears an agent of cluster %s", name)
	case unobservable != "":
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, "ApiServerUnreachable", unobservable
	case k == nil:
		c.Reason, c.Message = "NotReported", "the agent has not reported the cluster's nodes yet"
	case k.ReadyNodes == 0:
		c.Status, c.Reason = metav1.ConditionFalse, "NoReadyNode"
		c.Message = fmt.Sprintf("0 of %d nodes are ready: look at the nodes of cluster %s", k.Nodes, name)
	default:
		c.Status, c.Reason, c.Message = metav1.ConditionTrue, "Serving", fmt.Sprintf("%d of %d nodes are ready", k.ReadyNodes, k.Nodes)
	}
	return c
}

func kubernetesStatus(f *agentv1.ClusterFacts) *v1alpha1.KubernetesStatus {
	return &v1alpha1.KubernetesStatus{
		Version: f.GetVersion(), Nodes: f.GetNodes(), ReadyNodes: f.GetReadyNodes(),
		Allocatable: v1alpha1.Resources{CPU: quantity(f.GetAllocatableCpu()), Memory: quantity(f.GetAllocatableMemory())},
		Requested:   v1alpha1.Resources{CPU: quantity(f.GetRequestedCpu()), Memory: quantity(f.GetRequestedMemory())},

		StorageClasses: f.GetStorageClasses(), CustomKinds: customKinds(f), MissingImages: f.GetMissingImages(), Crowded: f.GetCrowded(),
	}
}

// customKinds are the kinds that a cluster serves and that are not Kubernetes' own.
func customKinds(f *agentv1.ClusterFacts) []string {
	var kinds []string
	for _, r := range f.GetResources() {
		if v1alpha1.IsCustomGroup(r.GetGroup()) {
			kinds = append(kinds, r.GetKind()+"."+r.GetGroup())
		}
	}
	slices.Sort(kinds)
	return slices.Compact(kinds)
}

// quantity of a value that an agent reported; one that does not parse is none.
func quantity(s string) resource.Quantity {
	q, err := resource.ParseQuantity(s)
	if err != nil {
		return resource.Quantity{}
	}
	return q
}
