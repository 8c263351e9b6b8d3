package bugs

import (
	"slices"
	"strings"
	"testing"
)

// TestBugsFitTheSource keeps the bugs true to a source that moves on.
func TestBugsFitTheSource(t *testing.T) {
	names := map[string]bool{}
	for _, b := range slices.Concat(All, Upgrade) {
		if names[b.Name] {
			t.Errorf("two bugs are called %q", b.Name)
		}
		names[b.Name] = true
		changed, err := b.apply("../../..")
		if err != nil {
			t.Error(err)
		} else if !strings.Contains(string(changed), b.New) {
			t.Errorf("%q changes nothing", b.Name)
		}
	}
}
