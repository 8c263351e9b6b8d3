package center

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestPlansGiveEachCenterItsPlace(t *testing.T) {
	plans, err := Plans("default", 0, []string{"north-1", "north-2", "south-1"})
	if err != nil {
		t.Fatal(err)
	}
	type place struct{ Name, Region, Address, Pods, Services, DNS, Link, Cgroup string }
	var got []place
	for _, p := range plans {
		got = append(got, place{p.Name, p.Region, p.Address.String(), p.PodCIDR.String(), p.ServiceCIDR.String(),
			p.DNSAddress().String(), p.HostLink, string(p.Cgroup)})
	}
	want := []place{
		{"north-1", "north", "10.210.0.11", "10.100.0.0/16", "10.150.0.0/16", "10.150.0.10", "tripod0c0", "tripod-lab-default/north-1"},
		{"north-2", "north", "10.210.0.12", "10.101.0.0/16", "10.151.0.0/16", "10.151.0.10", "tripod0c1", "tripod-lab-default/north-2"},
		{"south-1", "south", "10.210.0.13", "10.102.0.0/16", "10.152.0.0/16", "10.152.0.10", "tripod0c2", "tripod-lab-default/south-1"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("plans (-want +got):\n%s", diff)
	}
}

func TestPlansRefuse(t *testing.T) {
	for name, tc := range map[string]struct {
		index   int
		centers []string
	}{
		"no centers":                    {0, nil},
		"a center named twice":          {0, []string{"a-1", "a-1"}},
		"a name that is no DNS label":   {0, []string{"North_1"}},
		"a name that leaves its folder": {0, []string{"../x"}},
		"a subnet beyond the last":      {100, []string{"a-1"}},
		"more centers than addresses":   {0, make([]string, MaxCenters+1)},
	} {
		t.Run(name, func(t *testing.T) {
			if plans, err := Plans("default", tc.index, tc.centers); err == nil {
				t.Errorf("got %v, want an error", plans)
			}
		})
	}
}

// Whatever stands side by side on a machine shares no link, address or cgroup, and the
// kernel's limit for link names (15) is kept.
func TestPlansOfTwoLabsNeverMeet(t *testing.T) {
	names := make([]string, MaxCenters)
	for i := range names {
		names[i] = string(rune('a'+i)) + "-1"
	}
	rapid.Check(t, func(t *rapid.T) {
		first := rapid.IntRange(0, 99).Draw(t, "first")
		second := rapid.IntRange(0, 99).Filter(func(i int) bool { return i != first }).Draw(t, "second")
		seen := map[any]bool{}
		for lab, index := range map[string]int{"one": first, "two": second} {
			plans, err := Plans(lab, index, names)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range plans {
				for _, mine := range []any{p.HostLink, p.Address, p.HardwareAddr, p.Cgroup} {
					if seen[mine] {
						t.Fatalf("%v is given out twice", mine)
					}
					seen[mine] = true
				}
				if len(p.HostLink) > 15 {
					t.Fatalf("link name %s is too long for the kernel", p.HostLink)
				}
				if p.PodCIDR.Overlaps(p.ServiceCIDR) || p.PodCIDR.Contains(p.Address) || p.ServiceCIDR.Contains(p.Address) {
					t.Fatalf("networks of %s overlap: %v", p.Name, []any{p.PodCIDR, p.ServiceCIDR, p.Address})
				}
			}
		}
	})
}

func TestGatewayIsNoCenter(t *testing.T) {
	plans, err := Plans("default", 3, []string{"a-1"})
	if err != nil {
		t.Fatal(err)
	}
	if want := netip.MustParseAddr("10.210.3.1"); plans[0].Gateway != want || plans[0].Address == want {
		t.Errorf("gateway %s, address %s; want gateway %s", plans[0].Gateway, plans[0].Address, want)
	}
}
