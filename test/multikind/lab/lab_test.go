package lab

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"k8s.io/client-go/tools/clientcmd/api"

	"tripod.dev/tripod/test/multikind/center"
	"tripod.dev/tripod/test/multikind/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func kubeconfigFor(server string) *api.Config {
	config := api.NewConfig()
	config.Clusters["c"] = &api.Cluster{Server: server, TLSServerName: "name-of-" + server}
	config.AuthInfos["u"] = &api.AuthInfo{Token: "token-of-" + server}
	config.Contexts["x"] = &api.Context{Cluster: "c", AuthInfo: "u"}
	config.CurrentContext = "x"
	return config
}

func TestMergeKubeconfigs(t *testing.T) {
	plans, err := center.Plans("default", 0, []string{"north-1", "south-1"})
	if err != nil {
		t.Fatal(err)
	}
	direct := map[string]*api.Config{"north-1": kubeconfigFor("https://n"), "south-1": kubeconfigFor("https://s")}
	for name, tc := range map[string]struct {
		hub     *api.Config
		current string
		servers map[string]string
	}{
		"without a hub there are the clusters": {nil, "direct-north-1",
			map[string]string{"direct-north-1": "https://n", "direct-south-1": "https://s"}},
		"with a hub there are the gateway's doors too": {kubeconfigFor("https://h"), "hub", map[string]string{
			"direct-north-1": "https://n", "direct-south-1": "https://s", "hub": "https://h", "fleet": "https://h/fleet",
			"north-1": "https://h/clusters/north-1", "south-1": "https://h/clusters/south-1"}},
	} {
		t.Run(name, func(t *testing.T) {
			merged, err := mergeKubeconfigs(plans, direct, tc.hub)
			if err != nil {
				t.Fatal(err)
			}
			servers := map[string]string{}
			for name, entry := range maps.All(merged.Contexts) {
				servers[name] = merged.Clusters[entry.Cluster].Server
				if merged.AuthInfos[entry.AuthInfo] == nil || merged.Clusters[entry.Cluster].TLSServerName == "" {
					t.Errorf("context %s lost its user or server name", name)
				}
			}
			if diff := cmp.Diff(tc.servers, servers); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if merged.CurrentContext != tc.current {
				t.Errorf("current context %s, want %s", merged.CurrentContext, tc.current)
			}
		})
	}
	if _, err := mergeKubeconfigs(plans, map[string]*api.Config{"north-1": api.NewConfig(), "south-1": api.NewConfig()}, nil); err == nil {
		t.Error("an empty kubeconfig was merged")
	}
}

func TestStateSurvives(t *testing.T) {
	root := t.TempDir()
	yes := true
	made, err := create(mustDefault(t, Config{StateRoot: root, Hub: &yes}))
	if err != nil {
		t.Fatal(err)
	}
	made.state.Cuts = fault.Cuts{}.With(fault.Fault{Kind: fault.Cut, Center: "north-1", Peer: "south-1"}, nil).Sorted()
	if err := made.save(); err != nil {
		t.Fatal(err)
	}
	opened, err := Open(root, "")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(made.state, opened.state); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := slices.Collect(maps.Keys(opened.cuts())); len(got) != 2 {
		t.Errorf("cuts were forgotten: %v", got)
	}
}

func TestCreate(t *testing.T) {
	root := t.TempDir()
	first, err := create(mustDefault(t, Config{StateRoot: root, Centers: []string{"a-1", "b-1"}, Nodes: NodesNone}))
	if err != nil {
		t.Fatal(err)
	}
	t.Run("a second lab gets another subnet", func(t *testing.T) {
		second, err := create(mustDefault(t, Config{StateRoot: root, Name: "second"}))
		if err != nil {
			t.Fatal(err)
		}
		if first.state.Index == second.state.Index {
			t.Errorf("both have subnet %d", first.state.Index)
		}
	})
	t.Run("what is not asked for stays", func(t *testing.T) {
		again, err := create(mustDefault(t, Config{StateRoot: root}))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(first.state, again.state); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("other centers are refused", func(t *testing.T) {
		if _, err := create(mustDefault(t, Config{StateRoot: root, Centers: []string{"a-1"}})); err == nil {
			t.Error("the lab lost a center without down")
		}
	})
	t.Run("a lab that is not there says so", func(t *testing.T) {
		if _, err := Open(root, "nowhere"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v, want fs.ErrNotExist", err)
		}
	})
}

func TestConfigRefuses(t *testing.T) {
	for name, config := range map[string]Config{
		"a name that leaves the folder":       {Name: "../x"},
		"the name of the shared cache":        {Name: "cache"},
		"a kind of nodes that does not exist": {Nodes: "virtual"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := config.withDefaults(); err == nil {
				t.Error("was accepted")
			}
		})
	}
}

func TestLockIsHeldByOne(t *testing.T) {
	root := t.TempDir()
	silent := func(string) {}
	unlock, err := lock(t.Context(), root, "lab", silent)
	if err != nil {
		t.Fatal(err)
	}
	limited, cancel := context.WithTimeout(t.Context(), 120*time.Millisecond)
	defer cancel()
	if _, err := lock(limited, root, "lab", silent); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second holder got %v, want to wait", err)
	}
	if _, err := lock(t.Context(), root, "other", silent); err != nil {
		t.Errorf("another lab's lock: %v", err)
	}
	unlock()
	if _, err := lock(t.Context(), root, "lab", silent); err != nil {
		t.Errorf("after unlock: %v", err)
	}
}

func mustDefault(t *testing.T, config Config) Config {
	t.Helper()
	config, err := config.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	return config
}
