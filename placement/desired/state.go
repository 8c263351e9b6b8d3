package desired

import (
	"cmp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/placement"
	"tripod.dev/tripod/placement/catalog"
	"tripod.dev/tripod/placement/render"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// slot is one placement's part of one cluster.
type slot struct {
	placement types.UID
	cluster   string
}

// rendering is a slot's objects and what they were made of.
type rendering struct {
	from    sources
	objects []*agentv1.DesiredObject
}

// sources tell whether a rendering is still good without making it again.
type sources struct {
	generation, revision int64
	digest               string
	// versions of the templates.
	versions    string
	incarnation uint64
	// where is the cluster's region, center and labels, which overrides select by.
	where string
}

// identity is an object whatever the version of its API.
type identity struct{ group, kind, namespace, name string }

// State is what the cluster should run, by what this member knows now. It is
// complete only if every decision for the cluster could be rendered from exactly
// the templates it was made of.
//
// Its revision follows from committed state alone and never falls: a decision
// that goes is followed by a tombstone, and a tombstone by the cluster's
// status.buriedRevision.
func (r *Renderer) State(cluster string) *agentv1.DesiredState {
	state := &agentv1.DesiredState{Incarnation: r.config.Incarnation(), Complete: true}
	object := r.catalog.Cluster(cluster)
	if object == nil {
		state.Complete = false
		return state
	}
	state.Revision = object.Status.BuriedRevision
	wanted := map[identity]*agentv1.DesiredObject{}
	for _, p := range r.catalog.Placements() {
		i := slices.IndexFunc(p.Status.Decisions, func(s v1alpha1.PlacementDecision) bool { return s.Cluster == cluster })
		if i < 0 {
			if slices.Contains(p.Status.Left, cluster) {
				state.Revision = max(state.Revision, p.Status.Revision)
			}
			continue
		}
		state.Revision = max(state.Revision, p.Status.Revision)
		objects, whole := r.render(p, p.Status.Decisions[i], object, state.Incarnation)
		state.Complete = state.Complete && whole
		for _, o := range objects {
			id := identityOf(o.GetKey())
			if had := wanted[id]; had == nil || had.GetRevision() < o.GetRevision() {
				wanted[id] = o
			}
		}
	}
	r.bury(state, cluster, wanted)
	for _, o := range wanted {
		state.Objects = append(state.Objects, o)
	}
	sortState(state)
	return state
}

// bury adds the tombstones that name the cluster. A tombstone older than a
// decision that wants its object is being taken back: the decision stands.
func (r *Renderer) bury(state *agentv1.DesiredState, cluster string, wanted map[identity]*agentv1.DesiredObject) {
	for _, t := range r.catalog.Tombstones() {
		if !slices.Contains(t.Spec.Clusters, cluster) || t.DeletionTimestamp != nil {
			continue
		}
		revision := t.Spec.Revision
		state.Revision = max(state.Revision, revision)
		key := keyOf(t.Spec.Object)
		id := identityOf(key)
		if o := wanted[id]; o != nil {
			if o.GetRevision() > revision {
				continue
			}
			delete(wanted, id)
		}
		state.Burials = append(state.Burials, &agentv1.Burial{Tombstone: t.Namespace + "/" + t.Name, Key: key, Revision: revision})
	}
}

// render makes a placement's objects for a cluster. It returns false if the
// decision and the templates in the catalog do not belong together yet; what was
// rendered last, if anything, then stands.
func (r *Renderer) render(p *v1alpha1.Placement, share v1alpha1.PlacementDecision, object *v1alpha1.Cluster, incarnation uint64) ([]*agentv1.DesiredObject, bool) {
	at := slot{p.UID, share.Cluster}
	cluster := placement.ClusterFrom(object)
	r.mu.Lock()
	last := r.rendered[at]
	r.mu.Unlock()
	templates, found := r.templates(p)
	if !found {
		return last.objects, false
	}
	from := sources{
		generation: p.Generation, revision: p.Status.Revision, digest: p.Status.Digest,
		versions: versionsOf(templates), incarnation: incarnation, where: whereOf(cluster),
	}
	if last.from == from {
		return last.objects, true
	}
	digest, err := render.Digest(p.Spec.Overrides, p.Status.Decisions, templates)
	if err != nil || digest != p.Status.Digest {
		return last.objects, false
	}
	now := rendering{from: from}
	for _, t := range templates {
		if o := r.one(p, share, cluster, t, incarnation); o != nil {
			now.objects = append(now.objects, o)
		}
	}
	r.mu.Lock()
	r.rendered[at] = now
	r.mu.Unlock()
	return now.objects, true
}

func (r *Renderer) one(p *v1alpha1.Placement, share v1alpha1.PlacementDecision, cluster placement.Cluster, template *unstructured.Unstructured, incarnation uint64) *agentv1.DesiredObject {
	name := p.Namespace + "/" + p.Name
	manifest, err := render.Render(template, render.Target{
		Cluster: cluster, Share: share, Overrides: p.Spec.Overrides,
		Placement: name, Revision: p.Status.Revision, Incarnation: incarnation,
	})
	var raw []byte
	if err == nil {
		raw, err = manifest.MarshalJSON()
	}
	if err != nil {
		// The leader reports it in the placement's status.
		r.config.Log.Debug("could not render an object", "placement", name, "cluster", cluster.Name, "error", err)
		return nil
	}
	return &agentv1.DesiredObject{
		Key: keyOf(placement.ReferenceOf(template)), Manifest: raw, Placement: name, Revision: p.Status.Revision,
	}
}

// templates are those that the decision was made of, if the catalog has them all.
func (r *Renderer) templates(p *v1alpha1.Placement) ([]*unstructured.Unstructured, bool) {
	var out []*unstructured.Unstructured
	for _, ref := range p.Status.Placed {
		t, state := r.catalog.Template(ref)
		if state != catalog.KindServed || t == nil {
			return nil, false
		}
		out = append(out, t)
	}
	return out, true
}

func versionsOf(templates []*unstructured.Unstructured) string {
	versions := make([]string, 0, len(templates))
	for _, t := range templates {
		versions = append(versions, string(t.GetUID())+"/"+t.GetResourceVersion())
	}
	return strings.Join(versions, ",")
}

func whereOf(c placement.Cluster) string {
	labels := make([]string, 0, len(c.Labels))
	for k, v := range c.Labels {
		labels = append(labels, k+"="+v)
	}
	slices.Sort(labels)
	return c.Region + "|" + c.Center + "|" + strings.Join(labels, ",")
}

func keyOf(ref v1alpha1.TemplateReference) *agentv1.ObjectKey {
	return &agentv1.ObjectKey{ApiVersion: ref.APIVersion, Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name}
}

func identityOf(key *agentv1.ObjectKey) identity {
	gv, _ := schema.ParseGroupVersion(key.GetApiVersion())
	return identity{gv.Group, key.GetKind(), key.GetNamespace(), key.GetName()}
}

func sortState(state *agentv1.DesiredState) {
	slices.SortFunc(state.Objects, func(a, b *agentv1.DesiredObject) int { return compareKeys(a.Key, b.Key) })
	slices.SortFunc(state.Burials, func(a, b *agentv1.Burial) int {
		return cmp.Or(compareKeys(a.Key, b.Key), cmp.Compare(a.Tombstone, b.Tombstone))
	})
}

func compareKeys(a, b *agentv1.ObjectKey) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ApiVersion, b.ApiVersion))
}
