package memberagent

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"tripod.dev/tripod/failover/lease"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// GrantConfigMap holds the roles that the hub last gave this cluster, and where the
// agents are whose pledges may keep them: an agent that starts while no hub is there
// knows whom to ask, and to whom it may promise. An old one does no harm: what was
// granted since is not in it, and what was taken away is refused by whoever knows.
const GrantConfigMap = "tripod-agent-grant"

const entryGrant = "grant"

// lastGrant is the newest grant, stored when its roles have changed. It is safe for
// concurrent use.
type lastGrant struct {
	namespace string
	local     kubernetes.Interface
	log       *slog.Logger
	changed   chan struct{}

	mu     sync.Mutex
	newest *agentv1.Grant
}

func newLastGrant(local kubernetes.Interface, namespace string, log *slog.Logger) *lastGrant {
	return &lastGrant{namespace: namespace, local: local, log: log, changed: make(chan struct{}, 1)}
}

// load returns the grant of an earlier life, nil if there is none.
func (l *lastGrant) load(ctx context.Context) (*agentv1.Grant, error) {
	stored, err := l.local.CoreV1().ConfigMaps(l.namespace).Get(ctx, GrantConfigMap, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the last grant: %w", err)
	}
	return parseGrant(stored), nil
}

// parseGrant takes one that cannot be read for none: it only spares a restart during
// an outage of the hub.
func parseGrant(stored *corev1.ConfigMap) *agentv1.Grant {
	g := &agentv1.Grant{}
	if data := stored.BinaryData[entryGrant]; len(data) == 0 || proto.Unmarshal(data, g) != nil {
		return nil
	}
	return g
}

// granted takes the newest grant; it does not block.
func (l *lastGrant) granted(g *agentv1.Grant) {
	l.mu.Lock()
	was := l.newest
	l.newest = g
	l.mu.Unlock()
	if sameRoles(was, g) {
		return
	}
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

func sameRoles(a, b *agentv1.Grant) bool {
	return a != nil && b != nil && a.GetIncarnation() == b.GetIncarnation() && a.GetTtlMillis() == b.GetTtlMillis() &&
		slices.EqualFunc(a.GetRoles(), b.GetRoles(), func(x, y *agentv1.RoleGrant) bool { return x == y || proto.Equal(x, y) })
}

// run stores what has changed until ctx ends.
func (l *lastGrant) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.changed:
		}
		for {
			err := l.write(ctx)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err == nil {
				if err := sleep(ctx, l.rest()); err != nil {
					return err
				}
				break
			}
			if !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
				l.log.Warn("the grant was not stored", "error", err)
			}
			if err := sleep(ctx, time.Second); err != nil {
				return err
			}
		}
	}
}

// restEach is how long the store is left alone after a write, for each role in it: a
// thousand are 220 KB, and while a center is moved they change with every application.
// A replica that starts meanwhile, without a hub, knows of some an older epoch, at
// which it may do nothing.
const restEach = 5 * time.Millisecond

func (l *lastGrant) rest() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return restEach * time.Duration(len(l.newest.GetRoles()))
}

func (l *lastGrant) write(ctx context.Context) error {
	l.mu.Lock()
	newest := &agentv1.Grant{TtlMillis: l.newest.GetTtlMillis(), Incarnation: l.newest.GetIncarnation(), Term: l.newest.GetTerm(),
		Revision: l.newest.GetRevision(), Roles: l.newest.GetRoles()}
	l.mu.Unlock()
	maps := l.local.CoreV1().ConfigMaps(l.namespace)
	stored, err := maps.Get(ctx, GrantConfigMap, metav1.GetOptions{})
	missing := apierrors.IsNotFound(err)
	if missing {
		stored, err = &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: l.namespace, Name: GrantConfigMap}}, nil
	}
	if err != nil {
		return err
	}
	// The other replica may have stored as much, or more.
	if old := parseGrant(stored); old != nil && (sameRoles(old, newest) || stampOf(old).Compare(stampOf(newest)) > 0) {
		return nil
	}
	data, err := proto.Marshal(newest)
	if err != nil {
		return err
	}
	stored.BinaryData = map[string][]byte{entryGrant: data}
	if missing {
		_, err = maps.Create(ctx, stored, metav1.CreateOptions{})
	} else {
		_, err = maps.Update(ctx, stored, metav1.UpdateOptions{})
	}
	return err
}

func stampOf(g *agentv1.Grant) lease.Stamp {
	return lease.Stamp{Incarnation: g.GetIncarnation(), Term: g.GetTerm(), Revision: g.GetRevision()}
}
