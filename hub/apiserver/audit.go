package apiserver

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/apiserver/pkg/audit"
)

//go:embed audit_policy.yaml
var defaultAuditPolicy []byte

// writeDefaultAuditPolicy returns the path of the built-in policy.
func writeDefaultAuditPolicy(dataDir string) (string, error) {
	path := filepath.Join(dataDir, "audit", "policy.yaml")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("apiserver: make the audit directory: %w", err)
	}
	if err := os.WriteFile(path, defaultAuditPolicy, 0o600); err != nil {
		return "", fmt.Errorf("apiserver: write the audit policy: %w", err)
	}
	return path, nil
}

// withLog adds the log to what upstream was configured with, a webhook or nothing.
func withLog(log, upstream audit.Backend) audit.Backend {
	if upstream == nil {
		return log
	}
	return audit.Union(log, upstream)
}
