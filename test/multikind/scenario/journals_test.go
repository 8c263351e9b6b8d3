package scenario

import (
	"os"
	"path/filepath"
	"testing"
)

// What an earlier run has left would be audited against a ledger that never saw it.
func TestJournalsOfEarlierRunsAreNotAudited(t *testing.T) {
	folder := t.TempDir()
	stale := filepath.Join(folder, "journals", "bench1-c00.journal")
	if err := os.MkdirAll(filepath.Dir(stale), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(stale, []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	journals, err := emptyJournals(folder)
	if err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(journals); err == nil && len(left) > 0 {
		t.Errorf("%s holds %v", journals, left)
	}
}
