package memberagent

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// MemoryConfigMap holds the highest incarnation and revision of the hub that
// this cluster has ever seen (safety.md section 9).
const MemoryConfigMap = "tripod-agent-memory"

const (
	entryIncarnation = "incarnation"
	entryRevision    = "revision"
	// entryMembers are NAME=HOST:PORT, separated by spaces: where the hub was last.
	entryMembers = "members"
	// revisionEvery is how often a revision that has only grown is written.
	revisionEvery = 30 * time.Second
)

// memory is what survives the agent's restart. It only grows. It is safe for
// concurrent use.
type memory struct {
	namespace string
	local     kubernetes.Interface
	// seen is the newest desired state, asked when it is time to write.
	seen    func() (incarnation uint64, revision int64)
	log     *slog.Logger
	changed chan struct{}

	mu          sync.Mutex
	incarnation uint64
	written     memoryOf
	members     string
}

// memoryOf is how far an incarnation of the hub was seen. A later incarnation may
// begin at a lower revision, so revisions of two are never compared.
type memoryOf struct {
	incarnation uint64
	revision    int64
}

// grow is the further of the two.
func (m memoryOf) grow(other memoryOf) memoryOf {
	if other.incarnation > m.incarnation || other.incarnation == m.incarnation && other.revision > m.revision {
		return other
	}
	return m
}

func newMemory(local kubernetes.Interface, namespace string, log *slog.Logger) *memory {
	return &memory{namespace: namespace, local: local, log: log, changed: make(chan struct{}, 1), seen: func() (uint64, int64) { return 0, 0 }}
}

// load reads what earlier lives of the agent have seen.
func (m *memory) load(ctx context.Context) (incarnation uint64, revision int64, err error) {
	stored, err := m.local.CoreV1().ConfigMaps(m.namespace).Get(ctx, MemoryConfigMap, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("read what the agent remembers: %w", err)
	}
	incarnation, revision, err = parseMemory(stored)
	if err != nil {
		return 0, 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.incarnation, m.written, m.members = max(m.incarnation, incarnation), memoryOf{incarnation, revision}, stored.Data[entryMembers]
	return incarnation, revision, nil
}

// parseMemory refuses to guess: an agent that forgot would obey an older hub.
func parseMemory(stored *corev1.ConfigMap) (incarnation uint64, revision int64, err error) {
	if text := stored.Data[entryIncarnation]; text != "" {
		if incarnation, err = strconv.ParseUint(text, 10, 64); err != nil {
			return 0, 0, fmt.Errorf("config map %s/%s: %s is %q, wants a number: restore it", stored.Namespace, stored.Name, entryIncarnation, text)
		}
	}
	if text := stored.Data[entryRevision]; text != "" {
		if revision, err = strconv.ParseInt(text, 10, 64); err != nil {
			return 0, 0, fmt.Errorf("config map %s/%s: %s is %q, wants a number: restore it", stored.Namespace, stored.Name, entryRevision, text)
		}
	}
	return incarnation, revision, nil
}

// remember takes a higher incarnation and has it written; it does not block.
func (m *memory) remember(incarnation uint64) {
	m.mu.Lock()
	higher := incarnation > m.incarnation
	m.incarnation = max(m.incarnation, incarnation)
	m.mu.Unlock()
	if higher {
		select {
		case m.changed <- struct{}{}:
		default:
		}
	}
}

// rememberMembers takes where the hub's members are and has it written.
func (m *memory) rememberMembers(members []*agentv1.HubMember) {
	var entries []string
	for _, member := range members {
		entries = append(entries, member.GetName()+"="+member.GetAddress())
	}
	slices.Sort(entries)
	text := strings.Join(entries, " ")
	m.mu.Lock()
	changed := text != "" && text != m.members
	if changed {
		m.members = text
	}
	m.mu.Unlock()
	if changed {
		m.again()
	}
}

// told are the members as an earlier life of the agent heard of them.
func (m *memory) told() []*agentv1.HubMember {
	m.mu.Lock()
	defer m.mu.Unlock()
	var members []*agentv1.HubMember
	for _, entry := range strings.Fields(m.members) {
		if name, address, ok := strings.Cut(entry, "="); ok {
			members = append(members, &agentv1.HubMember{Name: name, Address: address})
		}
	}
	return members
}

// run writes what has grown until ctx ends.
func (m *memory) run(ctx context.Context) error {
	ticker := time.NewTicker(revisionEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.changed:
		case <-ticker.C:
		}
		if err := m.write(ctx); err != nil && ctx.Err() == nil {
			m.log.Warn("the agent's memory was not written", "error", err)
			if err := sleep(ctx, time.Second); err != nil {
				return err
			}
			m.again()
		}
	}
}

func (m *memory) again() {
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

func (m *memory) write(ctx context.Context) error {
	incarnation, revision := m.seen()
	m.mu.Lock()
	// Until the state of a new incarnation has come, nothing of it was seen.
	far := m.written.grow(memoryOf{m.incarnation, 0}).grow(memoryOf{incarnation, revision})
	members := m.members
	m.mu.Unlock()
	maps := m.local.CoreV1().ConfigMaps(m.namespace)
	stored, err := maps.Get(ctx, MemoryConfigMap, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		_, err = maps.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: m.namespace, Name: MemoryConfigMap}, Data: memoryData(far, members),
		}, metav1.CreateOptions{})
	case err == nil:
		// The other replica may have seen more.
		at, revision, parseErr := parseMemory(stored)
		if parseErr != nil {
			return parseErr
		}
		if at > far.incarnation {
			m.remember(at)
		}
		other := memoryOf{at, revision}
		far = far.grow(other)
		if far == other && stored.Data[entryMembers] == members {
			return nil
		}
		stored.Data = memoryData(far, members)
		_, err = maps.Update(ctx, stored, metav1.UpdateOptions{})
	}
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.written = m.written.grow(far)
	return nil
}

func memoryData(far memoryOf, members string) map[string]string {
	data := map[string]string{entryIncarnation: strconv.FormatUint(far.incarnation, 10), entryRevision: strconv.FormatInt(far.revision, 10)}
	if members != "" {
		data[entryMembers] = members
	}
	return data
}
