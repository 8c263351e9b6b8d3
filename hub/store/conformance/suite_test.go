package conformance

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apiserver/pkg/features"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	featuregatetesting "k8s.io/component-base/featuregate/testing"

	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/etcdapi"
)

func quickProgress(_ *store.Config, a *etcdapi.Config) { a.ProgressInterval = time.Second }

// suite is every test of the upstream suite that begins with RunTest, by its
// name without that, run as upstream's etcd3 package runs it. None is left out.
var suite = map[string]func(ctx context.Context, t *testing.T, members int){
	"Create": func(ctx context.Context, t *testing.T, members int) {
		s := setup(t, members)
		storagetesting.RunTestCreate(ctx, t, s, s.checkInvariants)
	},
	"CreateWithTTL":                              plain(storagetesting.RunTestCreateWithTTL),
	"CreateWithKeyExist":                         plain(storagetesting.RunTestCreateWithKeyExist),
	"Get":                                        plain(storagetesting.RunTestGet),
	"UnconditionalDelete":                        plain(storagetesting.RunTestUnconditionalDelete),
	"ConditionalDelete":                          plain(storagetesting.RunTestConditionalDelete),
	"DeleteWithSuggestion":                       plain(storagetesting.RunTestDeleteWithSuggestion),
	"DeleteWithSuggestionAndConflict":            plain(storagetesting.RunTestDeleteWithSuggestionAndConflict),
	"DeleteWithConflict":                         plain(storagetesting.RunTestDeleteWithConflict),
	"DeleteWithSuggestionOfDeletedObject":        plain(storagetesting.RunTestDeleteWithSuggestionOfDeletedObject),
	"ValidateDeletionWithSuggestion":             plain(storagetesting.RunTestValidateDeletionWithSuggestion),
	"ValidateDeletionWithOnlySuggestionValid":    plain(storagetesting.RunTestValidateDeletionWithOnlySuggestionValid),
	"PreconditionalDeleteWithSuggestion":         plain(storagetesting.RunTestPreconditionalDeleteWithSuggestion),
	"PreconditionalDeleteWithOnlySuggestionPass": plain(storagetesting.RunTestPreconditionalDeleteWithOnlySuggestionPass),
	"ListPaging":                                 plain(storagetesting.RunTestListPaging),
	"GetListRecursivePrefix":                     plain(storagetesting.RunTestGetListRecursivePrefix),
	"KeySchema":                                  plain(storagetesting.RunTestKeySchema),
	"NamespaceScopedList":                        plain(storagetesting.RunTestNamespaceScopedList),
	"GuaranteedUpdateWithTTL":                    plain(storagetesting.RunTestGuaranteedUpdateWithTTL),
	"GuaranteedUpdateWithConflict":               plain(storagetesting.RunTestGuaranteedUpdateWithConflict),
	"GuaranteedUpdateWithSuggestionAndConflict":  plain(storagetesting.RunTestGuaranteedUpdateWithSuggestionAndConflict),
	"GetListNonRecursive": func(ctx context.Context, t *testing.T, members int) {
		s := setup(t, members)
		storagetesting.RunTestGetListNonRecursive(ctx, t, s.increaseRV, s)
	},
	"GuaranteedUpdate": func(ctx context.Context, t *testing.T, members int) {
		s := setup(t, members)
		storagetesting.RunTestGuaranteedUpdate(ctx, t, s, s.checkInvariants)
	},
	"GuaranteedUpdateChecksStoredData": func(ctx context.Context, t *testing.T, members int) {
		storagetesting.RunTestGuaranteedUpdateChecksStoredData(ctx, t, setup(t, members))
	},
	"TransformationFailure": func(ctx context.Context, t *testing.T, members int) {
		storagetesting.RunTestTransformationFailure(ctx, t, setup(t, members))
	},
	"List": func(ctx context.Context, t *testing.T, members int) {
		s := setup(t, members)
		storagetesting.RunTestList(ctx, t, s, s.compact, false, s.client.Kubernetes.(*storagetesting.KubernetesRecorder))
	},
	"ConsistentList": func(ctx context.Context, t *testing.T, members int) {
		s := setup(t, members)
		storagetesting.RunTestConsistentList(ctx, t, s, s.increaseRV, false, true, false)
	},
	"CompactRevision": func(ctx context.Context, t *testing.T, members int) {
		featuregatetesting.SetFeatureGateDuringTest(t, utilfeature.DefaultFeatureGate, features.ListFromCacheSnapshot, true)
		s := setup(t, members)
		storagetesting.RunTestCompactRevision(ctx, t, s, s.increaseRV, s.compact)
	},
	"ListContinuation": func(ctx context.Context, t *testing.T, members int) {
		s := setup(t, members)
		storagetesting.RunTestListContinuation(ctx, t, s, s.checkCalls)
	},
	"ListPaginationRareObject": func(ctx context.Context, t *testing.T, members int) {
		featuregatetesting.SetFeatureGateDuringTest(t, utilfeature.DefaultFeatureGate, features.ListFromCacheSnapshot, false)
		s := setup(t, members)
		storagetesting.RunTestListPaginationRareObject(ctx, t, s, s.checkCalls)
	},
	"ListContinuationWithFilter": func(ctx context.Context, t *testing.T, members int) {
		s := setup(t, members)
		storagetesting.RunTestListContinuationWithFilter(ctx, t, s, s.checkCalls)
	},
	"ListInconsistentContinuation": func(ctx context.Context, t *testing.T, members int) {
		s := setup(t, members)
		storagetesting.RunTestListInconsistentContinuation(ctx, t, s, s.compact)
	},
	"ListResourceVersionMatch": func(ctx context.Context, t *testing.T, members int) {
		storagetesting.RunTestListResourceVersionMatch(ctx, t, setup(t, members))
	},
	"Stats": func(ctx context.Context, t *testing.T, members int) {
		for name, estimate := range map[string]bool{"with size estimation": true, "without size estimation": false} {
			t.Run(name, func(t *testing.T) {
				s := setup(t, members)
				if estimate {
					if err := s.etcd3.EnableResourceSizeEstimation(s.keys); err != nil {
						t.Fatal(err)
					}
				}
				storagetesting.RunTestStats(ctx, t, s, s.codec, s.transformer, estimate)
			})
		}
	},
	"Watch":                              plain(storagetesting.RunTestWatch),
	"DeleteTriggerWatch":                 plain(storagetesting.RunTestDeleteTriggerWatch),
	"WatchFromNonZero":                   plain(storagetesting.RunTestWatchFromNonZero),
	"DelayedWatchDelivery":               plain(storagetesting.RunTestDelayedWatchDelivery),
	"WatchContextCancel":                 plain(storagetesting.RunTestWatchContextCancel),
	"WatcherTimeout":                     plain(storagetesting.RunTestWatcherTimeout),
	"WatchDeleteEventObjectHaveLatestRV": plain(storagetesting.RunTestWatchDeleteEventObjectHaveLatestRV),
	"WatchInitializationSignal":          plain(storagetesting.RunTestWatchInitializationSignal),
	"ClusterScopedWatch":                 plain(storagetesting.RunTestClusterScopedWatch),
	"NamespaceScopedWatch":               plain(storagetesting.RunTestNamespaceScopedWatch),
	"WatchFromZero": func(ctx context.Context, t *testing.T, members int) {
		s := setup(t, members)
		storagetesting.RunTestWatchFromZero(ctx, t, s, s.compact)
	},
	"WatchError": func(ctx context.Context, t *testing.T, members int) {
		storagetesting.RunTestWatchError(ctx, t, setup(t, members))
	},
	"WatchWithUnsafeDelete": func(ctx context.Context, t *testing.T, members int) {
		featuregatetesting.SetFeatureGateDuringTest(t, utilfeature.DefaultFeatureGate, features.AllowUnsafeMalformedObjectDeletion, true)
		storagetesting.RunTestWatchWithUnsafeDelete(ctx, t, setup(t, members))
	},
	"WatchDispatchBookmarkEvents": func(ctx context.Context, t *testing.T, members int) {
		storagetesting.RunTestWatchDispatchBookmarkEvents(ctx, t, setup(t, members, quickProgress), false)
	},
	// etcd3 itself sends no bookmarks of its own; upstream runs this one only
	// through the watch cache, which is how it runs here.
	"OptionalWatchBookmarksWithCorrectResourceVersion": func(ctx context.Context, t *testing.T, members int) {
		storagetesting.RunTestOptionalWatchBookmarksWithCorrectResourceVersion(ctx, t, cached(t, setup(t, members)))
	},
}

// more are the suite's functions that are named otherwise.
var more = map[string]func(ctx context.Context, t *testing.T, members int){
	"OptionalTestProgressNotify": func(ctx context.Context, t *testing.T, members int) {
		s := setup(t, members, quickProgress)
		storagetesting.RunOptionalTestProgressNotify(ctx, t, s, s.increaseRV)
	},
	"SendInitialEventsBackwardCompatibility": plain(storagetesting.RunSendInitialEventsBackwardCompatibility),
	"WatchSemantics":                         plain(storagetesting.RunWatchSemantics),
	"WatchSemanticInitialEventsExtended":     plain(storagetesting.RunWatchSemanticInitialEventsExtended),
	"WatchListMatchSingle":                   plain(storagetesting.RunWatchListMatchSingle),
	"WatchErrorIsBlockingFurtherEvents": func(ctx context.Context, t *testing.T, members int) {
		storagetesting.RunWatchErrorIsBlockingFurtherEvents(ctx, t, setup(t, members))
	},
}

// onThree are also run against a follower of three members: writes are then
// forwarded, reads confirmed by the leader, watches served by the follower.
var onThree = []string{
	"Create", "CreateWithTTL", "GuaranteedUpdate", "List", "ConsistentList", "ListInconsistentContinuation",
	"Watch", "WatchFromZero", "DelayedWatchDelivery", "NamespaceScopedWatch",
}

func TestStorage(t *testing.T) {
	for name, run := range suite {
		t.Run(name, func(t *testing.T) { run(t.Context(), t, 1) })
	}
}

func TestStorageMore(t *testing.T) {
	for name, run := range more {
		t.Run(name, func(t *testing.T) { run(t.Context(), t, 1) })
	}
}

func TestStorageOnAFollower(t *testing.T) {
	for _, name := range onThree {
		t.Run(name, func(t *testing.T) { suite[name](t.Context(), t, 3) })
	}
}

// TestNoUpstreamTestIsMissing reads the names from upstream's source.
func TestNoUpstreamTestIsMissing(t *testing.T) {
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", "k8s.io/apiserver/pkg/storage/testing").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no sources in %s: %v", dir, err)
	}
	declared := regexp.MustCompile(`(?m)^func RunTest(\w+)\(`)
	upstream := map[string]bool{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range declared.FindAllSubmatch(text, -1) {
			upstream[string(m[1])] = true
		}
	}
	ours := map[string]bool{}
	for name := range suite {
		ours[name] = true
	}
	if diff := cmp.Diff(upstream, ours); diff != "" {
		t.Fatalf("the suite differs from upstream's (-upstream +ours):\n%s", diff)
	}
}
