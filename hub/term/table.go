package term

import (
	"slices"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/types"

	"tripod.dev/tripod/hub/api/v1alpha1"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// mostGone is how many roles that are no more a table remembers for one cluster. Who
// has been away for longer than that is told everything.
const mostGone = 1024

// RoleTable is what committed state at Revision gives to every cluster.
type RoleTable struct {
	Revision int64

	version  uint64 // grows with each change of any role; 0 if nobody counts
	from     uint64 // what has changed is known after that version
	clusters map[string]*share
}

// share is what one cluster is given, and at which version each of it has changed.
type share struct {
	roles []*agentv1.RoleGrant
	since []uint64 // of roles
	gone  []gone   // in the order in which they went
}

type gone struct {
	dataset types.NamespacedName
	version uint64
}

// Roles are those of a cluster.
func (t RoleTable) Roles(cluster string) []*agentv1.RoleGrant {
	if s := t.clusters[cluster]; s != nil {
		return s.roles
	}
	return nil
}

// grant gives a cluster its roles; only what has changed if it holds some that were
// counted here in the same term.
func (t RoleTable) grant(g *agentv1.Grant, cluster string, held *agentv1.RolesHeld) {
	g.Version = t.version
	version := held.GetVersion()
	if t.version == 0 || version < t.from || version > t.version || held.GetIncarnation() != g.GetIncarnation() || held.GetTerm() != g.GetTerm() {
		g.Roles = t.Roles(cluster)
		return
	}
	g.Since = version
	s := t.clusters[cluster]
	if s == nil {
		return
	}
	g.Total = uint32(len(s.roles))
	for i, role := range s.roles {
		if s.since[i] > version {
			g.Roles = append(g.Roles, role)
		}
	}
	for _, left := range slices.Backward(s.gone) {
		if left.version <= version {
			break
		}
		g.Gone = append(g.Gone, &agentv1.DatasetKey{Namespace: left.dataset.Namespace, Name: left.dataset.Name})
	}
}

// roleLedger makes a table from the one before: of the datasets that have changed.
type roleLedger struct {
	terms   Terms
	entries map[types.NamespacedName]given
	table   RoleTable
}

// given is what a dataset gave to its clusters.
type given struct {
	dataset *v1alpha1.Dataset
	roles   []givenRole
}

type givenRole struct {
	cluster string
	role    *agentv1.RoleGrant
	since   uint64
}

// advance makes the table of these datasets, which are the same objects as before where
// they have not changed.
func (l *roleLedger) advance(datasets []*v1alpha1.Dataset, terms Terms) {
	next := l.table.version + 1
	settled := slices.Equal(terms.Places, l.terms.Places)
	table := RoleTable{from: max(1, l.table.from), clusters: map[string]*share{}}
	entries := make(map[types.NamespacedName]given, len(datasets))
	changed := l.entries == nil
	var left []gonePlace
	for _, d := range datasets {
		key := types.NamespacedName{Namespace: d.Namespace, Name: d.Name}
		entry := l.entries[key]
		if entry.dataset != d || !settled {
			var news bool
			entry, news = entry.renewed(d, terms, next)
			changed = changed || news
		}
		entries[key] = entry
		for _, g := range entry.roles {
			table.add(g)
		}
	}
	for key, old := range l.entries {
		for _, g := range old.roles {
			if !entries[key].names(g.cluster) {
				left = append(left, gonePlace{g.cluster, key})
			}
		}
	}
	for cluster, s := range l.table.clusters {
		if len(s.gone) > 0 {
			table.share(cluster).gone = s.gone
		}
	}
	table.leave(left, next)
	if table.version = l.table.version; changed || len(left) > 0 {
		table.version = next
	}
	l.terms, l.entries, l.table = terms, entries, table
}

// gonePlace is a role that a cluster has no more.
type gonePlace struct {
	cluster string
	dataset types.NamespacedName
}

// renewed is what d gives now; what is as before keeps its message and its version.
func (g given) renewed(d *v1alpha1.Dataset, terms Terms, next uint64) (now given, changed bool) {
	now.dataset = d
	for cluster, role := range rolesOf(d, terms) {
		r := givenRole{cluster, role, next}
		if i := slices.IndexFunc(g.roles, func(old givenRole) bool { return old.cluster == cluster }); i >= 0 && proto.Equal(g.roles[i].role, role) {
			r = g.roles[i]
		} else {
			changed = true
		}
		now.roles = append(now.roles, r)
	}
	return now, changed
}

func (g given) names(cluster string) bool {
	return slices.ContainsFunc(g.roles, func(r givenRole) bool { return r.cluster == cluster })
}

func (t *RoleTable) share(cluster string) *share {
	s := t.clusters[cluster]
	if s == nil {
		s = &share{}
		t.clusters[cluster] = s
	}
	return s
}

func (t *RoleTable) add(g givenRole) {
	s := t.share(g.cluster)
	s.roles, s.since = append(s.roles, g.role), append(s.since, g.since)
}

// leave notes roles that are no more since a version. Earlier tables share what they
// remember: it is never changed in place.
func (t *RoleTable) leave(left []gonePlace, version uint64) {
	for _, place := range left {
		s := t.share(place.cluster)
		s.gone = append(slices.Clip(s.gone), gone{place.dataset, version})
		if n := len(s.gone) - mostGone; n > 0 {
			t.from = max(t.from, s.gone[n-1].version)
			s.gone = s.gone[n:]
		}
	}
}
