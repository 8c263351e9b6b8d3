package applier

import (
	"bytes"

	"k8s.io/apimachinery/pkg/runtime/schema"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// identity is what makes two manifests one object: the version of its API
// does not.
type identity struct {
	group, kind, namespace, name string
}

func identityOf(key *agentv1.ObjectKey) identity {
	gv, _ := schema.ParseGroupVersion(key.GetApiVersion())
	return identity{gv.Group, key.GetKind(), key.GetNamespace(), key.GetName()}
}

// Seen orders what hubs say: the incarnation first, then the revision.
type Seen struct {
	Incarnation uint64
	Revision    int64
}

// Before tells whether s is older than other.
func (s Seen) Before(other Seen) bool {
	if s.Incarnation != other.Incarnation {
		return s.Incarnation < other.Incarnation
	}
	return s.Revision < other.Revision
}

// order is the latest that any hub member said of one object.
type order struct {
	key  *agentv1.ObjectKey
	seen Seen
	// manifest and placement are set for an object, tombstone for a burial.
	manifest  []byte
	placement string
	tombstone string
}

// ledger merges the streams of all hub members. It is pure: it decides what is
// wanted and never acts. Absence never turns into a deletion: an object that a
// complete state no longer names is let go, which means neither repaired nor
// deleted (invariant I3).
type ledger struct {
	seen   Seen
	orders map[identity]order
}

func newLedger(seen Seen) *ledger {
	return &ledger{seen: seen, orders: map[identity]order{}}
}

// merge takes one state in. It returns the objects whose order changed and those
// let go, and false if the state is refused as a whole.
//
// Members lag behind each other, so of each object the highest (incarnation,
// revision) stands. A state older than the newest one seen may bring news of
// objects that are known, but none of unknown ones: what is unknown may have
// been buried since.
func (l *ledger) merge(state *agentv1.DesiredState) (changed, released []identity, accepted bool) {
	at := Seen{state.GetIncarnation(), state.GetRevision()}
	if at.Incarnation < l.seen.Incarnation {
		return nil, nil, false
	}
	stale := at.Before(l.seen)
	named := map[identity]bool{}
	take := func(o order) {
		id := identityOf(o.key)
		named[id] = true
		had, known := l.orders[id]
		if !known && stale {
			return
		}
		if known && (o.seen.Before(had.seen) || had.same(o)) {
			return
		}
		if known && o.seen == had.seen && had.tombstone != "" {
			return
		}
		l.orders[id] = o
		changed = append(changed, id)
	}
	for _, o := range state.GetObjects() {
		take(order{
			key: o.GetKey(), seen: Seen{at.Incarnation, o.GetRevision()},
			manifest: o.GetManifest(), placement: o.GetPlacement(),
		})
	}
	for _, b := range state.GetBurials() {
		take(order{key: b.GetKey(), seen: Seen{at.Incarnation, b.GetRevision()}, tombstone: b.GetTombstone()})
	}
	if stale {
		return changed, nil, true
	}
	l.seen = at
	if state.GetComplete() {
		for id := range l.orders {
			if !named[id] {
				delete(l.orders, id)
				released = append(released, id)
			}
		}
	}
	return changed, released, true
}

func (o order) same(other order) bool {
	return o.seen == other.seen && o.tombstone == other.tombstone && bytes.Equal(o.manifest, other.manifest)
}
