// Package encryptiontest makes configurations of encryption for tests.
package encryptiontest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"tripod.dev/tripod/hub/encryption"
)

// File writes a configuration with one key, made now, and returns its path.
func File(t testing.TB) string {
	t.Helper()
	key, err := encryption.NewKey(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	text, err := encryption.Ring{key}.Text()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "encryption.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
