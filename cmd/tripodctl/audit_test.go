package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tripod.dev/tripod/hub/api/audittrail"
)

// TestAuditVerifyWithoutAHub verifies a log and then edits one record.
func TestAuditVerifyWithoutAHub(t *testing.T) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, ed25519.SeedSize))
	head := audittrail.Head{Member: "hub-a", Trail: "t", Mark: audittrail.Begin, Sequence: 1, Previous: audittrail.Genesis("hub-a", "t"), At: time.Unix(1e9, 0)}
	first, hash, err := head.SignWith(key).Line()
	if err != nil {
		t.Fatal(err)
	}
	event := `{"kind":"Event","apiVersion":"audit.k8s.io/v1","verb":"delete","user":{"username":"ann"},"annotations":{"a":"b"}}`
	second, hash, err := audittrail.Chain([]byte(event), 2, hash)
	if err != nil {
		t.Fatal(err)
	}
	end := audittrail.Head{Member: "hub-a", Trail: "t", Mark: audittrail.End, Sequence: 3, Previous: hash, At: time.Unix(1e9, 0)}.SignWith(key)
	third, _, err := end.Line()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	heads, err := json.Marshal(auditHeads{
		Key: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), Heads: map[string]audittrail.Head{end.Key(): end},
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	log, kept := filepath.Join(dir, "audit.log"), filepath.Join(dir, "heads.json")
	for _, file := range []struct {
		path string
		text []byte
	}{{log, bytes.Join([][]byte{first, second, third}, nil)}, {kept, heads}} {
		if err := os.WriteFile(file.path, file.text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	verify := func() (string, error) {
		var out bytes.Buffer
		c := newCommand()
		c.SetArgs([]string{"audit", "verify", "--heads", kept, log})
		c.SetOut(&out)
		err := c.ExecuteContext(t.Context())
		return out.String(), err
	}
	if _, err := verify(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(log, bytes.Replace(text, []byte(`"ann"`), []byte(`"bob"`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := verify()
	if !errors.Is(err, errNotReady) || !strings.Contains(out, "audit.log:2: record 2 does not have the hash that record 3 names") {
		t.Errorf("got %v\n%s", err, out)
	}
}
