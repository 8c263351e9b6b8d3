package network

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tripod.dev/tripod/test/multikind/center"
	"tripod.dev/tripod/test/multikind/fault"
)

func TestCutRules(t *testing.T) {
	plans, err := center.Plans("default", 7, []string{"a-1", "b-1", "c-1"})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		cuts fault.Cuts
		want []string
	}{
		"a healthy network drops nothing": {nil, nil},
		"one direction between centers is dropped while forwarding": {
			fault.Cuts{{From: "a-1", To: "c-1"}: true}, []string{`iifname "tripod7c0" oifname "tripod7c2" drop`}},
		"to and from the outside is the host's own input and output": {
			fault.Cuts{{From: "b-1", To: fault.Outside}: true, {From: fault.Outside, To: "b-1"}: true},
			[]string{`iifname "tripod7c1" drop`, `oifname "tripod7c1" drop`}},
	} {
		t.Run(name, func(t *testing.T) {
			rules, err := cutRules(plans, tc.cuts)
			if err != nil {
				t.Fatal(err)
			}
			var drops []string
			for line := range strings.Lines(rules) {
				if strings.HasSuffix(strings.TrimSpace(line), "drop") {
					drops = append(drops, strings.TrimSpace(line))
				}
			}
			if diff := cmp.Diff(tc.want, drops); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if !strings.HasPrefix(rules, "table bridge tripod7\ndelete table bridge tripod7\n") {
				t.Errorf("rules do not replace the old ones at once:\n%s", rules)
			}
		})
	}
	if _, err := cutRules(plans, fault.Cuts{{From: "a-1", To: "z-9"}: true}); err == nil {
		t.Error("a cut from an unknown center was accepted")
	}
}
