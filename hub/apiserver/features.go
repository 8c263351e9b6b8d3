package apiserver

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	_ "unsafe" // for the linkname below

	"github.com/go-logr/logr"
	"go.uber.org/zap"
	genericfeatures "k8s.io/apiserver/pkg/features"
	genericapiserver "k8s.io/apiserver/pkg/server"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/component-base/featuregate"
	"k8s.io/klog/v2"
	_ "k8s.io/kubernetes/pkg/features" // registers the feature gates
)

// gates are turned from upstream's default. They are process-wide.
var gates = map[string]bool{
	// Members are of one version and each serves everything by itself.
	string(genericfeatures.UnknownVersionInteroperabilityProxy): false,
	// Identity leases would be a write per member every ten seconds for a
	// feature that is off.
	string(genericfeatures.APIServerIdentity): false,
	string(genericfeatures.StorageVersionAPI): false,
	// The hub's leader is Raft's.
	string(genericfeatures.CoordinatedLeaderElection): false,
}

// etcd3ClientLogger writes JSON to standard error, several lines a second while
// the store has no leader, and nothing but an environment variable that is read
// before main can change it. The API server reports what fails for a client.
//
//go:linkname etcd3ClientLogger k8s.io/apiserver/pkg/storage/storagebackend/factory.etcd3ClientLogger
var etcd3ClientLogger *zap.Logger

// withoutTracing answers false for a gate that upstream has locked. The hub has no
// collector of traces to send to, and without one a request's spans are a twentieth
// of its cost.
type withoutTracing struct{ featuregate.FeatureGate }

// Enabled implements featuregate.FeatureGate.
func (g withoutTracing) Enabled(feature featuregate.Feature) bool {
	return feature != genericfeatures.APIServerTracing && g.FeatureGate.Enabled(feature)
}

// untraced is c for a chain of handlers that makes no spans.
func untraced(c *genericapiserver.Config) *genericapiserver.Config {
	own := *c
	own.FeatureGate = withoutTracing{c.FeatureGate}
	return &own
}

var setProcessWide = sync.OnceValue(func() error {
	klog.OsExit = running.exit
	etcd3ClientLogger = quietZap()
	known := utilfeature.DefaultMutableFeatureGate.GetAll()
	turned := map[string]bool{}
	for name, on := range gates {
		for feature := range known {
			if string(feature) == name {
				turned[name] = on
			}
		}
	}
	return utilfeature.DefaultMutableFeatureGate.SetFromMap(turned)
})

// routeUpstreamLogs sends klog's lines to logger: what upstream calls
// information is debugging to a hub's operator. Process-wide; last call wins.
func routeUpstreamLogs(logger *slog.Logger) {
	klog.SetLoggerWithOptions(logr.FromSlogHandler(quieter{logger.Handler()}), klog.ContextualLogger(true))
}

// quieter passes on as debugging what upstream calls information, and what it
// calls an error that is none for a hub.
type quieter struct{ slog.Handler }

func (q quieter) Enabled(ctx context.Context, level slog.Level) bool {
	return q.Handler.Enabled(ctx, quiet(level))
}

func (q quieter) Handle(ctx context.Context, record slog.Record) error {
	if record.Level = quiet(record.Level); isNoise(record) {
		record.Level = slog.LevelDebug
	}
	if !q.Handler.Enabled(ctx, record.Level) {
		return nil
	}
	return q.Handler.Handle(ctx, record)
}

func (q quieter) WithAttrs(attrs []slog.Attr) slog.Handler {
	return quieter{q.Handler.WithAttrs(attrs)}
}

func (q quieter) WithGroup(name string) slog.Handler { return quieter{q.Handler.WithGroup(name)} }

func quiet(level slog.Level) slog.Level {
	if level <= slog.LevelInfo {
		return min(level, slog.LevelDebug)
	}
	return level
}

// noise are upstream's errors that ask nothing of an operator, as they stand in
// the message or in an error beside it.
var noise = []string{
	// An option that nobody gave is reported as empty.
	"The manifest file is empty, ignoring.",
	// Members start together; one of them is first.
	`configmaps "extension-apiserver-authentication" already exists`,
	// The client has gone or its time is over. The client is told; nobody else
	// can do anything. Requests that are slow are in the metrics and the audit.
	"http: Handler timeout",
	"apiserver received an error that is not an metav1.Status: &errors.errorString{s:\"context canceled\"}",
	"apiserver received an error that is not an metav1.Status: context.deadlineExceededError{}",
	"Timeout or abort while handling",
	"Post-timeout activity",
	// Every watch says it when the leader is lost; the store says it once.
	"watch chan error: etcdserver: no leader",
	// Upstream waits for caches until its context ends: the leader has changed.
	"Unable to sync caches",
	"timed out waiting for dependency graph builder sync during GC sync",
}

func isNoise(record slog.Record) bool {
	is := func(text string) bool {
		return slices.ContainsFunc(noise, func(n string) bool { return strings.Contains(text, n) })
	}
	found := is(record.Message)
	record.Attrs(func(a slog.Attr) bool {
		found = found || (a.Key == "err" && is(a.Value.String()))
		return !found
	})
	return found
}
